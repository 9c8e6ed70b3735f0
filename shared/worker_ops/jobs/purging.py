"""`intelliflow jobs purge`: what ended long ago is deleted, a little at a time, and nobody waits for it."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from worker_ops.arguments import positive
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.jobs.changing_store import CHUNK, ENDED
from worker_ops.jobs.opened import command_over_jobs
from worker_ops.jobs.progress import Progress
from worker_ops.jobs.retrying import Stores
from worker_ops.jobs.selecting import add_consent, is_agreed
from worker_ops.output import add_output, say, write_rows
from worker_ops.servers import interruptible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker_ops.arguments import Commands
    from worker_ops.jobs.changing_store import ChangingStore
    from worker_ops.jobs.opened import JobsOperatorSettings
    from worker_runtime.loops import StopSignal

BEGINNING = datetime.min.replace(tzinfo=UTC)
MOST_DAYS = 36_500
# A statement that takes longer is followed by smaller ones.
LONG_SECONDS = 0.1
FEWEST = 10


def days(text: str) -> int:
    """Read a number of days."""
    number = positive(text)
    if number > MOST_DAYS:
        raise argparse.ArgumentTypeError(f"{text} is not a number of days from 1 to {MOST_DAYS}")
    return number


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("purge", help="delete jobs that succeeded, or were cancelled or aborted, so long ago")
    parser.add_argument("days", metavar="DAYS", type=days)
    parser.add_argument("--include-failed", action="store_true", help="and those that failed")
    add_consent(parser)
    add_output(parser)
    command_over_jobs(parser, Stores.of, _purge)


async def _purge(asked: argparse.Namespace, _: JobsOperatorSettings, stores: Stores) -> ExitCode:
    statuses = [status for status in ENDED if status != "failed" or asked.include_failed]
    before = await stores.jobs.now() - timedelta(days=asked.days)
    matched = await stores.changes.ended(statuses, before)
    total = sum(matched.values())
    if total and not is_agreed(asked):
        write_rows([{"status": status, "jobs": count} for status, count in matched.items()], asked.output)
        sentence = f"this would delete {total} jobs that ended more than {asked.days} days ago"
        if asked.dry_run:
            say(sentence)
            return ExitCode.OK
        raise CommandFailed(ExitCode.REFUSED, f"{sentence}; do it with --apply")
    with interruptible() as stop:
        deleted, progress = dict.fromkeys(statuses, 0), Progress(total)
        for status in statuses:
            async for chunk in _deleted(stores.changes, status, before, stop):
                deleted[status] += chunk
                progress.add(chunk)
        write_rows([{"status": status, "deleted": count} for status, count in deleted.items()], asked.output)
        if stop.requested.is_set():
            say("stopped; the same command goes on where it stopped")
            return ExitCode.PARTIAL
    return ExitCode.OK


async def _deleted(changes: ChangingStore, status: str, before: datetime, stop: StopSignal) -> AsyncIterator[int]:
    since, most = BEGINNING, CHUNK
    while not stop.requested.is_set():
        began = time.monotonic()
        purged = await changes.purge(status, since, before, most)
        if purged.latest is None:
            return
        since = purged.latest
        most = next_chunk(most, time.monotonic() - began)
        yield purged.deleted


def next_chunk(jobs: int, seconds: float) -> int:
    """Return how many jobs to delete next, when so many took so long."""
    if seconds > LONG_SECONDS:
        return max(FEWEST, jobs // 2)
    return min(CHUNK, jobs * 2)
