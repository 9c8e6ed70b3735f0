"""A queue engine on a real Redis with its jobs' ends in the test's hands."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from worker_runtime.bullmq.engine import QueueEngine
from worker_runtime.bullmq.engine_options import EngineOptions
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue
from worker_runtime.bullmq.settlement import Complete, Settlement
from worker_runtime.loops import StopSignal
from worker_runtime.redis.cluster import redis_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from worker_runtime.bullmq.leases import Lease
    from worker_runtime.redis.address import RedisAddress
    from worker_runtime.redis.connection import RedisConnection

QUEUE = QueueName("intelliflow", "events")
QUICK = EngineOptions(concurrency=10, lock_ms=1_000, renew_seconds=0.2, stalled_interval_ms=300)


class Tally:
    """Counts what the engine reports."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def lease_lost(self) -> None:
        self.seen["lease_lost"] += 1

    def recovered(self, jobs: int) -> None:
        self.seen["recovered"] += jobs

    def handed_back(self, jobs: int) -> None:
        self.seen["handed_back"] += jobs

    def redis_failed(self) -> None:
        self.seen["redis_failed"] += 1


@dataclass
class Bench:
    """Two connections, a queue, and engines started on it."""

    redis: RedisConnection
    url: str | RedisAddress
    queue: JobQueue
    tally: Tally
    ran: list[str] = field(default_factory=list)

    def engine(
        self,
        execute: Callable[[Lease], Awaitable[Settlement]] | None = None,
        options: EngineOptions = QUICK,
        *,
        token: str = "ours",
        redis: RedisConnection | None = None,
        blocking_url: str | None = None,
        **more: Any,
    ) -> Running:
        blocking = redis_connection(blocking_url or self.url, client_name="blocking", timeout_seconds=10)

        async def run(lease: Lease) -> Settlement:
            self.ran.append(lease.job.id.decode())
            return await execute(lease) if execute else Complete()

        engine = QueueEngine(
            redis or self.redis, blocking, self.queue.name, run, self.tally, options, token=token, **more
        )
        return Running(engine, blocking)

    async def hash(self, job_id: str) -> dict[str, str]:
        return {key.decode(): value.decode() for key, value in (await self.hash_bytes(job_id)).items()}

    async def hash_bytes(self, job_id: str) -> dict[bytes, bytes]:
        flat = await self.redis.call("HGETALL", self.queue.name.key(job_id))
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def ids(self, part: str) -> list[str]:
        kind = await self.redis.call("TYPE", self.queue.name.key(part))
        kind = kind if isinstance(kind, str) else kind.decode()
        command = "LRANGE" if kind == "list" else "ZRANGE"
        return [job_id.decode() for job_id in await self.redis.call(command, self.queue.name.key(part), 0, -1)]

    async def finished(self, number: int, within: float = 30.0) -> None:
        """Wait until so many jobs are completed or failed."""

        async def enough() -> bool:
            counts = await self.queue.counts()
            return counts.completed + counts.failed >= number

        await until(enough, within)


class Running:
    """An engine's life within a test."""

    def __init__(self, engine: QueueEngine, blocking: RedisConnection) -> None:
        self.engine = engine
        self.stop = StopSignal()
        self._blocking = blocking
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._blocking.open()
        self._task = asyncio.create_task(self.engine.run(self.stop))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.finish(grace=10)

    async def finish(self, grace: float) -> None:
        """Stop it as a signal would; raises what the engine raised."""
        self.stop.request(grace)
        try:
            if self._task is not None:
                await self._task
        finally:
            await self._blocking.close()

    async def die(self) -> None:
        """End it as kill -9 would: nothing is settled, renewed or handed back."""
        assert self._task is not None
        chains = list(self.engine._chains)
        for task in (self._task, *chains, *(t for t in asyncio.all_tasks() if t.get_name().startswith("leases "))):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._task = None
        await self._blocking.close()


@contextlib.asynccontextmanager
async def bench(url: str | RedisAddress, name: QueueName = QUEUE) -> AsyncIterator[Bench]:
    tally = Tally()
    redis = redis_connection(url, client_name="tests", timeout_seconds=2, on_error=tally.redis_failed)
    await redis.open()
    try:
        yield Bench(redis, url, JobQueue(redis, name), tally)
    finally:
        await redis.close()


async def until(condition: Callable[[], Awaitable[bool]], within: float = 10.0) -> None:
    """Ask again and again, until it is so; fails after `within` seconds."""
    async with asyncio.timeout(within):
        # Redis cannot tell us, so asking is the event.
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def payload(lease: Lease) -> Any:
    return json.loads(lease.job.fields[b"data"])


def counts_by_window(moments: Sequence[float], length: float) -> list[int]:
    """Count what falls into each window of BullMQ's limiter: one opens with the first job after another closed."""
    counts: list[int] = []
    closes = float("-inf")
    for moment in sorted(moments):
        if moment >= closes:
            closes = moment + length
            counts.append(0)
        counts[-1] += 1
    return counts
