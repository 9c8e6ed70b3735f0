"""`intelliflow queues`: how full every queue is."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from worker_runtime.bullmq.producer import JobQueue
from worker_runtime.redis.cluster import redis_connection
from worker_runtime.settings.queues import QUEUES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker_ops.output import Row
    from worker_runtime.bullmq.producer import QueueCounts
    from worker_runtime.redis.connection import RedisConnection
    from worker_runtime.settings import WorkerSettings

# A person waits for it.
TIMEOUT_SECONDS = 3.0


async def queue_rows(settings: WorkerSettings) -> list[Row]:
    """Count the jobs of every queue by state; raises `RedisUnavailable`."""
    async with _connected(settings) as redis:
        queues = [JobQueue(redis, settings.queue_name(key)) for key in QUEUES]
        counts = await asyncio.gather(*(queue.counts() for queue in queues))
    return [_row(queue.name.label, count) for queue, count in zip(queues, counts, strict=True)]


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


@asynccontextmanager
async def _connected(settings: WorkerSettings) -> AsyncIterator[RedisConnection]:
    redis = redis_connection(settings.redis_address(), client_name="intelliflow", timeout_seconds=TIMEOUT_SECONDS)
    await redis.open()
    try:
        yield redis
    finally:
        await redis.close()
