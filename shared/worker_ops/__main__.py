"""`intelliflow`: the operator's command line."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING, NoReturn, cast

import asyncpg
import structlog

from worker_ops import (
    contracts,
    deliveries,
    dlq,
    doctor,
    documents,
    endpoints,
    jobs,
    outbox,
    person,
    suppressions,
    template,
    workflow,
)
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.migrations import DatabaseUnreachable, MigrationError, migrate
from worker_ops.output import add_output, say, write_rows
from worker_ops.queues import queue_rows
from worker_runtime.postgres import DatabaseUnavailable, SchemaOutdated
from worker_runtime.redis.connection import RedisError, RedisUnavailable
from worker_runtime.settings import SettingsError, WorkerSettings, load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from io import TextIOWrapper

# How a command may end by an exception; any other is a bug. The last is what PostgreSQL says of a missing privilege.
ENDINGS = (
    CommandFailed,
    SettingsError,
    DatabaseUnreachable,
    DatabaseUnavailable,
    RedisUnavailable,
    MigrationError,
    RedisError,
    SchemaOutdated,
    asyncpg.PostgresError,
)


def main() -> NoReturn:
    """Run one command and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        # What a terminal has no character for is written as an escape.
        cast("TextIOWrapper", stream).reconfigure(errors="backslashreplace")
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough; Python's farewell must not find out again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.OK
    sys.exit(code)


def run(arguments: Sequence[str]) -> ExitCode:
    """Run one command; its data goes to standard output and everything else to standard error."""
    asked = _parser().parse_args(arguments)
    # What the libraries log is told by the exit code and the message; standard output is for data.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        code: ExitCode = asked.command(asked, load(asked.settings_type))
    except ENDINGS as error:
        code, reasons = _ending(error)
        return _failed(code, *reasons)
    return code


def _ending(error: Exception) -> tuple[ExitCode, Sequence[str]]:
    match error:
        case CommandFailed():
            return error.code, error.reasons
        case SettingsError():
            return ExitCode.FAILED, error.problems
        case DatabaseUnreachable():
            return ExitCode.UNREACHABLE, [str(error)]
        case DatabaseUnavailable():
            return ExitCode.UNREACHABLE, [f"PostgreSQL did not do it: {error}"]
        case RedisUnavailable():
            return ExitCode.UNREACHABLE, [f"cannot reach Redis: {error}"]
        case _:
            return ExitCode.FAILED, [str(error)]


def _failed(code: ExitCode, *reasons: str) -> ExitCode:
    for reason in reasons:
        say(f"error: {reason}")
    return code


def _migrate(asked: argparse.Namespace, settings: WorkerSettings) -> ExitCode:
    if settings.database_url is None and settings.job_queue_database_url is None:
        return _failed(ExitCode.FAILED, "DATABASE_URL is not set, so there is no database to migrate")
    if settings.database_url is not None:
        applied = migrate(settings.database_url.get_secret_value(), say)
        say(f"the schema is current ({len(applied)} migrations applied now)")
    if settings.job_queue_database_url is not None:
        jobs.migrating.bring_to_current(asked, settings)
    return ExitCode.OK


def _queues(asked: argparse.Namespace, settings: WorkerSettings) -> ExitCode:
    rows, missing = asyncio.run(queue_rows(settings))
    write_rows(rows, asked.output)
    if missing:
        say(missing)
    return ExitCode.PARTIAL if missing and settings.database_url else ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="intelliflow", description="Look after the workers, their queues and data.")
    parser.set_defaults(settings_type=WorkerSettings)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    migrations = commands.add_parser("migrate", help="bring the database to the current schema; safe to repeat")
    migrations.set_defaults(command=_migrate)
    queues = commands.add_parser("queues", help="show how full every queue is")
    add_output(queues)
    queues.set_defaults(command=_queues)
    for room in (
        outbox,
        dlq,
        workflow,
        jobs,
        deliveries,
        documents,
        suppressions,
        person,
        endpoints,
        template,
        doctor,
        contracts,
    ):
        room.register(commands)
    return parser


if __name__ == "__main__":
    main()
