"""`intelliflow`: the operator's command line."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from typing import TYPE_CHECKING, NoReturn

import structlog

from worker_ops import dry_run
from worker_ops.contracts import add_contracts
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.migrations import DatabaseUnreachable, MigrationError, migrate
from worker_ops.output import FORMATS, say, write_rows
from worker_ops.queues import queue_rows
from worker_runtime.redis.connection import RedisError, RedisUnavailable
from worker_runtime.settings import SettingsError, WorkerSettings, load

if TYPE_CHECKING:
    from collections.abc import Sequence


def main() -> NoReturn:
    """Run one command and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> ExitCode:
    """Run one command; its data goes to standard output and everything else to standard error."""
    asked = _parser().parse_args(arguments)
    # What the libraries log is told by the exit code and the message; standard output is for data.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        code: ExitCode = asked.command(asked, load(asked.settings_type))
    except SettingsError as error:
        return _failed(ExitCode.FAILED, *error.problems)
    except CommandFailed as error:
        return _failed(error.code, *error.reasons)
    except DatabaseUnreachable as error:
        return _failed(ExitCode.UNREACHABLE, str(error))
    except RedisUnavailable as error:
        return _failed(ExitCode.UNREACHABLE, f"cannot reach Redis: {error}")
    except (MigrationError, RedisError) as error:
        return _failed(ExitCode.FAILED, str(error))
    return code


def _failed(code: ExitCode, *reasons: str) -> ExitCode:
    for reason in reasons:
        say(f"error: {reason}")
    return code


def _migrate(_: argparse.Namespace, settings: WorkerSettings) -> ExitCode:
    if settings.database_url is None:
        return _failed(ExitCode.FAILED, "DATABASE_URL is not set, so there is no database to migrate")
    applied = migrate(settings.database_url.get_secret_value(), say)
    say(f"the schema is current ({len(applied)} migrations applied now)")
    return ExitCode.OK


def _queues(asked: argparse.Namespace, settings: WorkerSettings) -> ExitCode:
    write_rows(asyncio.run(queue_rows(settings)), asked.output)
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="intelliflow", description="Look after the workers, their queues and data.")
    parser.set_defaults(settings_type=WorkerSettings)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    migrations = commands.add_parser("migrate", help="bring the database to the current schema; safe to repeat")
    migrations.set_defaults(command=_migrate)
    queues = commands.add_parser("queues", help="show how full every queue is")
    queues.add_argument("-o", "--output", choices=FORMATS, default="table", help="how to write it (default: table)")
    queues.set_defaults(command=_queues)
    outbox = commands.add_parser("outbox", help="look at committed events and what becomes of them")
    dry_run.add_to(outbox.add_subparsers(required=True, metavar="COMMAND"))
    add_contracts(commands)
    return parser


if __name__ == "__main__":
    main()
