"""`intelliflow jobs migrate`: the jobs database as this release needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.exit_codes import ExitCode
from worker_ops.jobs.opened import database_url
from worker_ops.jobs.schema import migrate_jobs
from worker_ops.output import say

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands
    from worker_runtime.settings import WorkerSettings


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("migrate", help="bring the jobs database to the current schema; safe to repeat")
    parser.set_defaults(command=bring_to_current)


def bring_to_current(_: argparse.Namespace, settings: WorkerSettings) -> ExitCode:
    """Apply what is missing, and say so."""
    applied = migrate_jobs(database_url(settings), say)
    say(f"the schema of the jobs is current ({len(applied)} migrations applied now)")
    return ExitCode.OK
