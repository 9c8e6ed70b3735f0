"""`intelliflow dlq`: every dead letter there is, by queue and by what it died of, those of workflows among them.

A dead event is a row of the outbox and, if it was ever published, a failed job too: it counts once, as the row.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from events_worker.store import DeadLetterStore, Selection
from events_worker.turns import is_event_id
from worker_ops.exit_codes import ExitCode
from worker_ops.output import add_output, say, write_rows
from worker_ops.servers import opened_database, opened_redis
from worker_ops.workflow.dead_store import DeadStore
from worker_runtime.bullmq.inspection import failed_jobs
from worker_runtime.health_board import timestamp
from worker_runtime.redaction import redact
from worker_runtime.settings.queues import QUEUES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from worker_ops.arguments import Commands
    from worker_ops.output import Row
    from worker_runtime.bullmq.inspection import FailedJob
    from worker_runtime.postgres import Database
    from worker_runtime.redis.connection import RedisConnection
    from worker_runtime.settings import WorkerSettings

LONGEST_CODE = 64
# As the metrics name it: its dead letters are in workflow_dlq.
WORKFLOWS = "workflow_execution_queue"
DEAD = "dead_letter"


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "dlq", help="show the dead letters of every queue, of the outbox and of workflows, by what they died of"
    )
    add_output(parser)
    parser.set_defaults(command=lambda asked, settings: asyncio.run(_dlq(asked, settings)))


@dataclass(slots=True)
class Pile:
    """Dead letters of one queue that died of the same; `sample` is the oldest, `oldest` in ms since the epoch."""

    count: int
    oldest: float
    sample: str
    error: str


Piles = dict[tuple[str, str], Pile]


async def _dlq(asked: argparse.Namespace, settings: WorkerSettings) -> ExitCode:
    piles: Piles = {}
    async with opened_redis(settings) as redis:
        if settings.database_url is None:
            say("DATABASE_URL is not set: events that could not be published, and workflows, are not among these")
            await add_queues(piles, redis, settings, None)
        else:
            async with opened_database(settings) as database:
                await add_outbox(piles, settings.queue_name("EVENTS").label, DeadLetterStore(database))
                await add_queues(piles, redis, settings, database)
                await add_workflows(piles, DeadStore(database))
    write_rows([_row(*place, pile) for place, pile in sorted(piles.items(), key=_largest_first)], asked.output)
    return ExitCode.OK


async def add_outbox(piles: Piles, label: str, store: DeadLetterStore) -> None:
    """Count the dead events."""
    for group in await store.groups(Selection()):
        add(piles, label, Pile(group.count, group.oldest.timestamp() * 1000, group.example, group.error))


async def add_queues(piles: Piles, redis: RedisConnection, settings: WorkerSettings, database: Database | None) -> None:
    """Count the failed jobs of every queue, a page at a time, but for those of dead events."""
    for key in QUEUES:
        name = settings.queue_name(key)
        async for page in failed_jobs(redis, name):
            for job in await _not_events(page, DeadLetterStore(database)) if database and key == "EVENTS" else page:
                add(piles, name.label, Pile(1, job.failed_ms, job.id, job.reason))


async def _not_events(page: Sequence[FailedJob], store: DeadLetterStore) -> list[FailedJob]:
    statuses = await store.statuses([job.id for job in page if is_event_id(job.id)])
    return [job for job in page if statuses.get(job.id) != DEAD]


async def add_workflows(piles: Piles, store: DeadStore) -> None:
    """Count the executions that failed for good."""
    for group in await store.groups():
        oldest = group["oldest"].timestamp() * 1000
        add(piles, WORKFLOWS, Pile(group["count"], oldest, group["example"], redact(group["error"])))


def add(piles: Piles, label: str, more: Pile) -> None:
    """Put dead letters where others of their kind are."""
    place = (label, more.error.partition(":")[0][:LONGEST_CODE])
    known = piles.setdefault(place, more)
    if known is more:
        return
    known.count += more.count
    if more.oldest < known.oldest:
        known.oldest, known.sample, known.error = more.oldest, more.sample, more.error


def _largest_first(item: tuple[tuple[str, str], Pile]) -> tuple[str, int, str]:
    (label, code), pile = item
    return label, -pile.count, code


def _row(label: str, code: str, pile: Pile) -> Row:
    return {
        "queue": label,
        "code": code,
        "count": pile.count,
        "oldest": timestamp(pile.oldest / 1000),
        "sample": pile.sample,
        "error": pile.error,
    }
