"""`intelliflow jobs stats`: how full every queue is, and whether its jobs get done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker_ops.exit_codes import ExitCode
from worker_ops.jobs.jobs_store import NAMES, JobsStore
from worker_ops.jobs.opened import command_over_jobs
from worker_ops.output import add_output, say, write_rows

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands
    from worker_ops.jobs.opened import JobsOperatorSettings
    from worker_ops.output import Row


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("stats", help="count the jobs of every queue, or of every task, by what became of them")
    parser.add_argument("--by", choices=list(NAMES), default="queue", help="a line for each (default: %(default)s)")
    add_output(parser)
    command_over_jobs(parser, JobsStore, _stats, by_index=False)


async def _stats(asked: argparse.Namespace, settings: JobsOperatorSettings, store: JobsStore) -> ExitCode:
    counts = await store.counts(asked.by, settings.silence_seconds)
    write_rows([_row(row, asked.by) for row in counts], asked.output)
    if not any(worker["alive"] for worker in await store.workers(settings.silence_seconds)):
        say("no worker is alive: nothing is worked until a jobs-worker, or an API with the worker in it, is started")
    return ExitCode.OK


def _row(row: Any, by: str) -> Row:
    return {
        by: row["name"],
        "todo": row["waiting"],
        "scheduled": row["later"],
        "doing": row["doing"],
        "doingOver5Min": row["long"],
        "stalled": row["stalled"],
        "succeeded": row["succeeded"],
        "failed": row["failed"],
        "cancelled": row["cancelled"],
        "aborted": row["aborted"],
        "succeededLastHour": row["done_lately"],
        "failedLastHour": row["failed_lately"],
        "averageMs": _milliseconds(row["seconds"]),
        "oldestWaitingAgeMs": _milliseconds(row["oldest"]),
    }


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else max(0, round(seconds * 1000))
