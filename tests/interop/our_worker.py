"""Our Consumer on one queue, put together as a worker process does it, with a job's own options in force."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from interop.behaviours import Task, behave
from worker_runtime.bullmq.engine_options import EngineOptions
from worker_runtime.consumer import Consumer, ConsumerOptions
from worker_runtime.loops import StopSignal
from worker_runtime.metrics import Metrics
from worker_runtime.redis.connection import RedisConnection
from worker_runtime.retry import JobOptionsRetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from worker_runtime.bullmq.names import QueueName
    from worker_runtime.job import Job
    from worker_runtime.outcome import Outcome
    from worker_runtime.retry import RetryPolicy

# As Node's worker without options: finished jobs are kept for ever.
LIKE_NODE = EngineOptions(concurrency=1, worker="w", keep_completed={"count": -1}, keep_failed={"count": -1})
OWN_OPTIONS = JobOptionsRetry()
GRACE_SECONDS = 5.0


@dataclass
class OurWorker:
    """A Consumer at work. `ran` is what it ran, and when by the wall clock in seconds."""

    consumer: Consumer[Task]
    stop: StopSignal
    running: asyncio.Task[None]
    metrics: Metrics
    ran: list[tuple[str, float]] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [job_id for job_id, _ in self.ran]


@contextlib.asynccontextmanager
async def our_worker(
    redis: RedisConnection,
    url: str,
    queue: QueueName,
    options: EngineOptions = LIKE_NODE,
    handle: Callable[[Job[Task]], Awaitable[Outcome]] = behave,
    retry: RetryPolicy = OWN_OPTIONS,
) -> AsyncIterator[OurWorker]:
    """Work the queue for the length of the block, then stop as SIGTERM would."""
    ran: list[tuple[str, float]] = []

    async def note_and_handle(job: Job[Task]) -> Outcome:
        ran.append((job.id, time.time()))
        return await handle(job)

    metrics = Metrics("interop")
    consumer = Consumer(
        redis,
        RedisConnection(url, client_name=queue.client_name(options.worker), timeout_seconds=10),
        queue,
        Task,
        note_and_handle,
        ConsumerOptions(retry, options),
        metrics.for_queue(queue.label),
        random.Random(),
        token=f"ours-{random.random()}",
    )
    stop = StopSignal()
    running = asyncio.create_task(consumer.run(stop))
    try:
        yield OurWorker(consumer, stop, running, metrics, ran)
    finally:
        stop.request(GRACE_SECONDS)
        await running
