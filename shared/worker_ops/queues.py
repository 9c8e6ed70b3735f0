"""`intelliflow queues`: how full every queue is, the one of workflows in PostgreSQL among them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from worker_ops.servers import opened_database, opened_redis
from worker_runtime.bullmq.producer import JobQueue
from worker_runtime.postgres import DatabaseUnavailable, SchemaOutdated
from worker_runtime.settings.queues import QUEUES
from worker_runtime.watch import Uncountable
from workflow_worker.queue import LABEL, WorkflowQueue
from workflow_worker.store.upkeep import UpkeepStore

if TYPE_CHECKING:
    from worker_ops.output import Row
    from worker_runtime.bullmq.producer import QueueCounts
    from worker_runtime.settings import WorkerSettings


async def queue_rows(settings: WorkerSettings) -> tuple[list[Row], str]:
    """Count the jobs of every queue by state, and say what could not be counted; raises `RedisUnavailable`."""
    async with opened_redis(settings) as redis:
        queues = [JobQueue(redis, settings.queue_name(key)) for key in QUEUES]
        counts = await asyncio.gather(*(queue.counts() for queue in queues))
    rows = [_row(queue.name.label, count) for queue, count in zip(queues, counts, strict=True)]
    if settings.database_url is None:
        return rows, f"DATABASE_URL is not set: {LABEL} is not among these"
    try:
        return [*rows, await _workflow_row(settings)], ""
    except (DatabaseUnavailable, SchemaOutdated, Uncountable) as error:
        return rows, f"{LABEL} is not among these: {error}"


async def _workflow_row(settings: WorkerSettings) -> Row:
    async with opened_database(settings) as database:
        return _row(LABEL, await WorkflowQueue(UpkeepStore(database)).counts())


def _row(label: str, counts: QueueCounts) -> Row:
    return {
        "queue": label,
        "waiting": counts.waiting,
        "active": counts.active,
        "delayed": counts.delayed,
        "prioritized": counts.prioritized,
        "completed": counts.completed,
        "failed": counts.failed,
        "paused": counts.paused,
        "oldestWaitingAgeMs": counts.oldest_waiting_ms,
    }
