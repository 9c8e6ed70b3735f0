"""`intelliflow queues`: how full every queue is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from worker_ops.servers import opened_redis
from worker_runtime.bullmq.producer import JobQueue
from worker_runtime.settings.queues import QUEUES

if TYPE_CHECKING:
    from worker_ops.output import Row
    from worker_runtime.bullmq.producer import QueueCounts
    from worker_runtime.settings import WorkerSettings


async def queue_rows(settings: WorkerSettings) -> list[Row]:
    """Count the jobs of every queue by state; raises `RedisUnavailable`."""
    async with opened_redis(settings) as redis:
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
