"""`intelliflow jobs workers`: who works the jobs, and whether they live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.exit_codes import ExitCode
from worker_ops.jobs.jobs_store import JobsStore
from worker_ops.jobs.opened import command_over_jobs
from worker_ops.output import add_output, at, write_rows

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands
    from worker_ops.jobs.opened import JobsOperatorSettings


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("workers", help="list the workers, when each was last heard of, and what it has")
    add_output(parser)
    command_over_jobs(parser, JobsStore, _workers)


async def _workers(asked: argparse.Namespace, settings: JobsOperatorSettings, store: JobsStore) -> ExitCode:
    rows = [
        {
            "workerId": row["id"],
            "alive": row["alive"],
            "lastBeat": at(row["last_heartbeat"]),
            "doing": row["doing"],
            "oldestStarted": at(row["oldest"]),
        }
        for row in await store.workers(settings.silence_seconds)
    ]
    write_rows(rows, asked.output)
    return ExitCode.OK
