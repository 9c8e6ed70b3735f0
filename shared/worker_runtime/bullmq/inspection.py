"""What an operator reads of a queue beyond its counts: where one job is, and why the failed ones failed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_runtime.bullmq.claimed import read_integer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker_runtime.bullmq.names import QueueName
    from worker_runtime.redis.connection import RedisConnection

# Jobs read at a time.
PAGE = 500
SETS = ("completed", "failed", "delayed", "prioritized", "waiting-children")
# The last is where older releases of BullMQ keep the jobs of a paused queue.
LISTS = ("active", "wait", "paused")


@dataclass(frozen=True, slots=True)
class JobReport:
    """A job as it stands. `state` is BullMQ's; times are in ms since the epoch."""

    state: str
    name: str
    attempts: int
    failed_reason: str | None
    added_ms: int
    finished_ms: int | None


@dataclass(frozen=True, slots=True)
class FailedJob:
    """One of the failed set, with its reason and when it failed, in ms since the epoch."""

    id: str
    reason: str
    failed_ms: int


async def job_report(redis: RedisConnection, queue: QueueName, job_id: str) -> JobReport | None:
    """Look for a job; `None` when the queue knows nothing of it. Raises `RedisUnavailable` and `RedisError`."""
    wanted = ("name", "atm", "failedReason", "timestamp", "finishedOn")
    fields = await redis.call("HMGET", queue.key(job_id), *wanted)
    if fields[0] is None:
        return None
    name, attempts, reason, added, finished = fields
    return JobReport(
        await _state(redis, queue, job_id),
        _text(name),
        read_integer(attempts or 0),
        None if reason is None else _text(reason),
        read_integer(added or 0),
        read_integer(finished) if finished else None,
    )


async def _state(redis: RedisConnection, queue: QueueName, job_id: str) -> str:
    in_sets = (redis.call("ZSCORE", queue.key(part), job_id) for part in SETS)
    in_lists = (redis.call("LPOS", queue.key(part), job_id) for part in LISTS)
    found = await asyncio.gather(*in_sets, *in_lists)
    states = [part for part, place in zip((*SETS, *LISTS), found, strict=True) if place is not None]
    return states[0] if states else "unknown"


async def failed_jobs(redis: RedisConnection, queue: QueueName) -> AsyncIterator[list[FailedJob]]:
    """Read the failed set a page at a time, the oldest first; what fails meanwhile may or may not be among it."""
    start = 0
    while flat := await redis.call("ZRANGE", queue.key("failed"), start, start + PAGE - 1, "WITHSCORES"):
        ids, scores = flat[::2], flat[1::2]
        reasons = await asyncio.gather(
            *(redis.call("HGET", queue.key(_text(job_id)), "failedReason") for job_id in ids)
        )
        rows: Any = zip(ids, reasons, scores, strict=True)
        yield [FailedJob(_text(job_id), _text(reason or b""), int(float(score))) for job_id, reason, score in rows]
        start += len(ids)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
