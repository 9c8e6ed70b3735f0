"""For the author of a handler: run it against a real queue, or call it with a typed job.

    async with running(shout, payload=Shout, redis_url=redis_url) as queue:
        ended = await queue.ended(await queue.add({"text": "hello"}))
    assert (ended.state, ended.returnvalue) == ("completed", "HELLO")

    assert await shout(job_for(Shout(text="hello"), attempt=2)) == Done("HELLO")

Redis is real, and so is everything between it and the handler: decoding, time limit, retries, settling.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel

from worker_runtime.bullmq.engine_options import EngineOptions
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.consumer import DEFERRED_BECAUSE, Consumer, ConsumerOptions
from worker_runtime.job import Children, Job
from worker_runtime.loops import StopSignal
from worker_runtime.metrics import Metrics
from worker_runtime.outcome import Hold, Outcome
from worker_runtime.redis.connection import RedisConnection
from worker_runtime.retry import RetryPolicy, ScheduledRetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from worker_runtime.consumer import Handler, OnDead

__all__ = ["AddedJob", "Ended", "HandlerQueue", "Heard", "job_for", "running"]

P = TypeVar("P")
M = TypeVar("M", bound=BaseModel)
State = Literal["completed", "failed", "delayed", "waiting"]
CHILDLESS = Children({}, {})
AT_ONCE = ScheduledRetry(max_attempts=3, delays_seconds=(0.001,))
LOOK_SECONDS = 0.005
# Scores of `delayed` are milliseconds times this, so that jobs of one millisecond keep their order.
SCORES_PER_MS = 0x1000


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a job, as Redis says it. `attempts` are those it has used up.

    `state` is `delayed` when it is to run again in `due_in` seconds, later than anybody waits for it here, and
    `waiting` when its handler returned `Hold`. Both reasons begin with their code.
    """

    state: State
    attempts: int
    returnvalue: Any = None
    failed_reason: str | None = None
    deferred_because: str | None = None
    progress: Any = None
    due_in: float = 0.0


@dataclass(frozen=True, slots=True)
class AddedJob:
    """A job that waits in a queue."""

    id: str
    name: str
    data: Any


class HandlerQueue:
    """A queue that `running` works with one handler. Raises `RedisUnavailable` when Redis is gone."""

    def __init__(self, redis: RedisConnection, name: QueueName, held: set[str], work: asyncio.Task[None]) -> None:
        self.name = name
        self._redis = redis
        self._jobs = JobQueue(redis, name)
        self._held = held
        self._work = work

    async def add(
        self,
        data: BaseModel | Mapping[str, Any] | bytes,
        *,
        name: str = "job",
        job_id: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """Add a job as a producer would and return its id; `data` as bytes is sent as it is, valid or not."""
        body = data.model_dump_json(by_alias=True).encode() if isinstance(data, BaseModel) else data
        return await self._jobs.add(NewJob(name, body, job_id=job_id, options=options or {}))

    async def ended(self, job_id: str, within: float = 10.0) -> Ended:
        """Wait until nothing more will happen to a job `within` so many seconds.

        Raises `TimeoutError` when it still runs then, `LookupError` for a job that is not there (it may have asked to
        be removed), and whatever bug ended the queue's work, such as a handler that returned no outcome.
        """
        deadline = time.time() + within
        # Redis cannot tell us, so asking is the event.
        while (ended := await self._look(job_id, deadline)) is None:
            if self._work.done():
                self._work.result()
            if time.time() > deadline:
                raise TimeoutError(f"job {job_id} has not ended within {within:g} s")
            await asyncio.sleep(LOOK_SECONDS)
        return ended

    async def holds(self, job_id: str) -> bool:
        """Tell whether there is a job with that id, finished or not."""
        return bool(await self._redis.call("EXISTS", self.name.key(job_id)))

    async def _look(self, job_id: str, deadline: float) -> Ended | None:
        key, call = self.name.key, self._redis.call
        # The hash last: it must be no older than where the job is.
        completed, failed, score, place, flat = await asyncio.gather(
            call("ZSCORE", key("completed"), job_id),
            call("ZSCORE", key("failed"), job_id),
            call("ZSCORE", key("delayed"), job_id),
            call("LPOS", key("wait"), job_id),
            call("HGETALL", key(job_id)),
        )
        if not flat:
            raise LookupError(f"there is no job {job_id}: never added, or removed when it ended")
        if completed is not None:
            return as_left("completed", flat)
        if failed is not None:
            return as_left("failed", flat)
        if score is not None and (due := float(score) / SCORES_PER_MS / 1000) > deadline:
            return as_left("delayed", flat, due - time.time())
        return as_left("waiting", flat) if place is not None and job_id in self._held else None


@asynccontextmanager
async def running(
    handle: Handler[M],
    *,
    payload: type[M],
    redis_url: str,
    retry: RetryPolicy = AT_ONCE,
    time_limit_seconds: float = 60.0,
    concurrency: int = 10,
    name: QueueName | None = None,
    on_dead: OnDead | None = None,
) -> AsyncIterator[HandlerQueue]:
    """Work a queue of the block's own with `handle`; its keys are removed at the end. Other queues are left alone.

    `retry` says how often and when a failed job is tried again: three times, at once, unless told otherwise. What still
    runs at the end of the block is interrupted. The queue has a `name` of its own unless one is given; `on_dead` is
    the consumer's. Raises `RedisUnavailable`.
    """
    name = name or QueueName(f"testing-{uuid.uuid4().hex}", "handler")
    held: set[str] = set()
    redis = RedisConnection(redis_url, client_name="handler-test")
    blocking = RedisConnection(redis_url, client_name="handler-test-waiting", timeout_seconds=15)
    consumer = Consumer(
        redis,
        blocking,
        name,
        payload,
        noting_holds(handle, held),
        ConsumerOptions(retry, EngineOptions(concurrency=concurrency), time_limit_seconds),
        Metrics("handler-test").for_queue(name.label),
        Random(0),  # noqa: S311  spreads retries, alike each time
        token=uuid.uuid4().hex,
        on_dead=on_dead,
    )
    await redis.open()
    stop = StopSignal()
    try:
        await redis.call("PING")
        work = asyncio.create_task(consumer.run(stop))
        try:
            yield HandlerQueue(redis, name, held, work)
        finally:
            stop.request(0)
            await asyncio.wait({work})
            await remove_keys(redis, name.key("*"))
    finally:
        await redis.close()
    work.result()


def job_for(
    payload: P,
    *,
    attempt: int = 1,
    name: str = "job",
    job_id: str = "the-job",
    queue: str = "testing:handler",
    created_at: float | None = None,
    notes: Heard | None = None,
) -> Job[P]:
    """Make the job a handler would be called with, for calling it without a queue.

    `created_at` is in seconds since the epoch, now unless told otherwise; what the job says is in `notes` afterwards.
    """
    created = time.time() if created_at is None else created_at
    return Job(job_id, name, queue, payload, attempt, created, notes or Heard())


@dataclass
class Heard:
    """What a job made by `job_for` reported and logged, and what it is told about its children and itself."""

    progress: list[Any] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    family: Children = CHILDLESS
    ours: bool = True

    async def report_progress(self, progress: Any) -> None:
        """See `Job`."""
        self.progress.append(progress)

    async def log(self, line: str) -> None:
        """See `Job`."""
        self.lines.append(line)

    async def children(self) -> Children:
        """See `Job`."""
        return self.family

    async def still_ours(self) -> bool:
        """See `Job`."""
        return self.ours


def noting_holds(handle: Handler[M], held: set[str]) -> Handler[M]:
    """Note who asks to be held: Redis shows such a job as any other that waits."""

    async def noting(job: Job[M]) -> Outcome:
        held.discard(job.id)
        outcome = await handle(job)
        if isinstance(outcome, Hold):
            held.add(job.id)
        return outcome

    return noting


def as_left(state: State, flat: Sequence[bytes], due_in: float = 0.0) -> Ended:
    """Read a job's hash."""
    texts = [part.decode("utf-8", "backslashreplace") for part in flat]
    fields = dict(zip(texts[::2], texts[1::2], strict=True))
    return Ended(
        state,
        attempts=int(fields.get("atm", "0")),
        returnvalue=json.loads(fields.get("returnvalue", "null")),
        failed_reason=fields.get("failedReason"),
        deferred_because=fields.get(DEFERRED_BECAUSE),
        progress=json.loads(fields.get("progress", "null")),
        due_in=due_in,
    )


async def jobs_waiting_in(redis: RedisConnection, name: QueueName) -> list[AddedJob]:
    """Return the jobs of a queue that nobody works: those to run next first, then by priority, then the delayed."""
    parts = (("LRANGE", "wait"), ("ZRANGE", "prioritized"), ("ZRANGE", "delayed"))
    waiting, *others = await asyncio.gather(*(redis.call(command, name.key(part), 0, -1) for command, part in parts))
    ids = [job_id.decode() for job_id in [*reversed(waiting), *(one for ids in others for one in ids)]]
    fields = await asyncio.gather(*(redis.call("HMGET", name.key(job_id), "name", "data") for job_id in ids))
    return [AddedJob(job_id, job.decode(), json.loads(data)) for job_id, (job, data) in zip(ids, fields, strict=True)]


async def remove_keys(redis: RedisConnection, matching: str) -> None:
    """Remove what a test left in Redis."""
    cursor: bytes | int = b"0"
    while True:
        cursor, keys = await redis.call("SCAN", cursor, "MATCH", matching, "COUNT", 1000)
        if keys:
            await redis.call("UNLINK", *keys)
        if int(cursor) == 0:
            return
