"""Our engine as a contender: Consumer with locks, the shipped retry table, metrics and the default retention."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import uuid
from typing import TYPE_CHECKING, Any

import structlog
import uvloop
from pydantic import BaseModel

from benchmarks.stopwatch import Arrivals, Stopwatch, Task, say
from worker_runtime.bullmq.engine_options import EngineOptions
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.bullmq.scripts import Limit
from worker_runtime.consumer import Consumer, ConsumerOptions, Handler
from worker_runtime.loops import StopSignal
from worker_runtime.metrics import Metrics
from worker_runtime.outcome import Done, Outcome
from worker_runtime.redis.connection import RedisConnection
from worker_runtime.retry import ScheduledRetry

if TYPE_CHECKING:
    from worker_runtime.job import Job

QUEUE = QueueName("intelliflow", "events")


class Event(BaseModel):
    """The part of the body that a handler would declare."""

    eventId: str  # noqa: N815  as on the wire
    eventType: str  # noqa: N815
    tenantId: str  # noqa: N815
    payload: dict[str, Any]


async def enqueue(task: Task, redis: RedisConnection) -> None:
    queue, watch, body = JobQueue(redis, QUEUE), Stopwatch(task.jobs), task.body
    event = Event.model_validate_json(body).model_dump()
    await queue.counts()
    watch.start()
    for size in task.calls():
        await queue.add_bulk([NewJob("event", event) for _ in range(size)])
    watch.stop()
    watch.report()


def consumer(task: Task, redis: RedisConnection, handle: Handler[Event]) -> Consumer[Event]:
    limit = Limit(task.limit_max, task.limit_ms) if task.limit_max else None
    return Consumer(
        redis,
        RedisConnection(task.url, client_name="blocking", timeout_seconds=15),
        QUEUE,
        Event,
        handle,
        ConsumerOptions(ScheduledRetry(3, (1.0, 5.0)), EngineOptions(concurrency=task.concurrency, limit=limit)),
        Metrics("bench").for_queue(QUEUE.label, concurrency=task.concurrency),
        random.Random(),
        token=uuid.uuid4().hex,
    )


async def work(task: Task, redis: RedisConnection) -> None:
    watch, stop = Stopwatch(task.jobs), StopSignal()

    async def handle(job: Job[Event]) -> Outcome:
        watch.hit()
        return Done()

    running = asyncio.create_task(consumer(task, redis, handle).run(stop))
    await watch.done.wait()
    stop.request(10)
    await running
    watch.report()


async def watch(task: Task, redis: RedisConnection) -> None:
    arrivals, stop = Arrivals(task.jobs), StopSignal()

    async def handle(job: Job[Event]) -> Outcome:
        arrivals.note(job.payload.eventId)
        await asyncio.sleep(task.hold_seconds)
        return Done()

    await redis.call("PING")
    running = asyncio.create_task(consumer(task, redis, handle).run(stop))
    say("ready")
    await arrivals.done.wait()
    stop.request(10)
    await running


async def main(task: Task) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    redis = RedisConnection(task.url, client_name="bench", timeout_seconds=5)
    await redis.open()
    try:
        await {"enqueue": enqueue, "work": work, "watch": watch}[task.role](task, redis)
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await redis.close()


if __name__ == "__main__":
    uvloop.run(main(Task.given()))
