"""`intelliflow jobs failed`: failures one by one, or by what they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.arguments import positive
from worker_ops.exit_codes import ExitCode
from worker_ops.jobs.jobs_store import JobsStore
from worker_ops.jobs.opened import command_over_jobs
from worker_ops.jobs.selecting import add_filters, failed_row, group_row, selection_of
from worker_ops.output import add_output, say, write_rows

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands
    from worker_ops.jobs.opened import JobsOperatorSettings

SHOWN = 100


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("failed", help="list the jobs that have failed, the latest first, or group them")
    add_filters(parser)
    parser.add_argument("--group", action="store_true", help="count them by queue, task and error")
    parser.add_argument("--limit", type=positive, default=SHOWN, help="list at most so many (default: %(default)s)")
    add_output(parser)
    command_over_jobs(parser, JobsStore, _failed)


async def _failed(asked: argparse.Namespace, _: JobsOperatorSettings, store: JobsStore) -> ExitCode:
    selection = selection_of(asked)
    if asked.group:
        write_rows([group_row(row) for row in await store.groups(selection, kinds=True)], asked.output)
        return ExitCode.OK
    found = await store.newest(selection, asked.limit + 1)
    write_rows([failed_row(row, asked.output) for row in found[: asked.limit]], asked.output)
    if len(found) > asked.limit:
        say("there are more: --limit shows them, --group counts them")
    return ExitCode.OK
