"""`intelliflow contracts`: compare two catalogues of event contracts, write the check that a database can make."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from events_worker.contracts.catalogue import SHIPPED, load_catalogue
from events_worker.contracts.changes import breaks
from events_worker.contracts.sql import Inexpressible, check_sql
from worker_ops.exit_codes import ExitCode
from worker_ops.output import say
from worker_runtime.yaml_source import SourceError

if TYPE_CHECKING:
    from worker_ops.arguments import Commands


def register(commands: Commands) -> None:
    """Add the verbs to the command line."""
    contracts = commands.add_parser("contracts", help="event contracts: compare two versions, write the database check")
    verbs = contracts.add_subparsers(required=True, metavar="VERB")
    check = verbs.add_parser("check", help="say what in NEW breaks producers or consumers that rely on OLD")
    check.add_argument("old", type=Path, metavar="OLD", help="the catalogue they rely on")
    check.add_argument("new", type=Path, metavar="NEW", nargs="?", default=SHIPPED, help="default: the shipped one")
    check.set_defaults(command=lambda asked, _: _check(asked.old, asked.new))
    sql = verbs.add_parser("sql", help="print the script that makes the database refuse events that break a contract")
    sql.add_argument("catalogue", type=Path, nargs="?", default=SHIPPED, help="default: the shipped one")
    sql.set_defaults(command=lambda asked, _: _sql(asked.catalogue))


def _check(old: Path, new: Path) -> ExitCode:
    try:
        found = breaks(load_catalogue(old), load_catalogue(new))
    except SourceError as error:
        say(f"error: {error}")
        return ExitCode.FAILED
    for sentence in found:
        sys.stdout.write(f"{sentence}\n")
    say(f"{len(found)} promises are broken" if found else "nothing breaks")
    return ExitCode.FAILED if found else ExitCode.OK


def _sql(catalogue: Path) -> ExitCode:
    try:
        sys.stdout.write(check_sql(load_catalogue(catalogue)))
    except (SourceError, Inexpressible) as error:
        say(f"error: {error}")
        return ExitCode.FAILED
    return ExitCode.OK
