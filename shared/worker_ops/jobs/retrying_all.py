"""`intelliflow jobs retry-all`: everything that has failed begins again, page after page."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.jobs.opened import command_over_jobs
from worker_ops.jobs.progress import Progress
from worker_ops.jobs.retrying import Stores
from worker_ops.jobs.selecting import add_consent, add_filters, group_row, is_agreed, selection_of
from worker_ops.output import add_output, say, write_rows
from worker_ops.servers import interruptible

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands
    from worker_ops.jobs.jobs_store import Selection
    from worker_ops.jobs.opened import JobsOperatorSettings
    from worker_runtime.loops import StopSignal

BEFORE_ALL = (datetime.min.replace(tzinfo=UTC), 0)


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("retry-all", help="let all failed jobs begin again, or those of a queue")
    parser.add_argument("only", metavar="QUEUE", nargs="?", help="of this queue, as --queue")
    add_filters(parser)
    add_consent(parser)
    add_output(parser)
    command_over_jobs(parser, Stores.of, _retry_all)


async def _retry_all(asked: argparse.Namespace, _: JobsOperatorSettings, stores: Stores) -> ExitCode:
    if asked.only and asked.queue:
        raise CommandFailed(ExitCode.USAGE, "name one queue, or none")
    asked.queue = asked.queue or asked.only
    # Those that fail again meanwhile are not retried a second time.
    selection = replace(selection_of(asked), until=await stores.jobs.now())
    groups = await stores.jobs.groups(selection)
    matched = sum(row["count"] for row in groups)
    if matched and not is_agreed(asked):
        write_rows([group_row(row) for row in groups], asked.output)
        sentence = f"this would retry {matched} jobs"
        if asked.dry_run:
            say(sentence)
            return ExitCode.OK
        raise CommandFailed(ExitCode.REFUSED, f"{sentence}; do it with --apply")
    with interruptible() as stop:
        changed = await _applied(stores, selection, matched, stop)
        write_rows([{"matched": matched, "retried": changed, "left": matched - changed}], asked.output)
        return _ending(matched - changed, stopped=stop.requested.is_set())


async def _applied(stores: Stores, selection: Selection, matched: int, stop: StopSignal) -> int:
    after, progress = BEFORE_ALL, Progress(matched)
    while not stop.requested.is_set():
        page = await stores.changes.retry_page(selection, after)
        if page is None:
            break
        after = (page.finished_at, page.id)
        progress.add(page.changed)
    return progress.done


def _ending(left: int, *, stopped: bool) -> ExitCode:
    if stopped:
        say("stopped; the same command goes on where it stopped")
    elif left > 0:
        say(f"{left} are left: another job with their queueing lock waits already, or somebody else has changed them")
    return ExitCode.PARTIAL if stopped or left > 0 else ExitCode.OK
