"""Adding jobs, and asking a queue how it is: what a producer and an operator need of one."""

from __future__ import annotations

import asyncio
import functools
import json
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgpack

from worker_runtime.bullmq.claimed import read_integer
from worker_runtime.bullmq.job_options import refuse_options, stored
from worker_runtime.bullmq.names import QueueName, refuse_job_id
from worker_runtime.bullmq.scripts import now_ms, shipped
from worker_runtime.redis.connection import RedisError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker_runtime.redis.connection import RedisConnection, Script, ScriptCall

ADD_STANDARD = shipped("addStandardJob-9")
ADD_DELAYED = shipped("addDelayedJob-6")
ADD_PRIORITIZED = shipped("addPrioritizedJob-9")
PAUSE = shipped("pause-7")
REMOVE = shipped("removeJob-2")

STANDARD_KEYS = "wait paused meta id completed delayed active events marker"
DELAYED_KEYS = "marker meta id delayed completed events"
PRIORITIZED_KEYS = "marker meta id prioritized delayed completed active events pc"
BULK_CHUNK = 500
HIGHEST_PRIORITY_NUMBER = 2_097_151
# `dumps` would make an encoder for each job.
to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to add. `data` is JSON-able, or bytes that are JSON already.

    `job_id` makes adding it twice harmless; without one Redis counts. `priority` 0 is none and is served before any
    other, 1 is the highest; `lifo` goes to the head of the queue. `options` are further BullMQ options (`attempts`,
    `backoff`, `removeOnComplete`, `tm`, `deduplication`...).
    """

    name: str
    data: Any
    job_id: str | None = None
    delay_ms: int = 0
    priority: int = 0
    lifo: bool = False
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many jobs are where. `oldest_waiting_ms` is the age of the job that is next in line; 0 when none waits."""

    waiting: int
    active: int
    completed: int
    failed: int
    delayed: int
    prioritized: int
    paused: bool
    oldest_waiting_ms: int

    @property
    def depth(self) -> int:
        """Jobs that could run now."""
        return self.waiting + self.prioritized


class JobQueue:
    """One BullMQ queue from the outside. Every method may raise `RedisUnavailable` or `RedisError`."""

    def __init__(self, redis: RedisConnection, name: QueueName) -> None:
        self.name = name
        self._redis = redis
        self._prefix = name.key("")
        self._keys = functools.cache(lambda parts: [name.key(part) for part in parts.split()])

    @property
    def trouble(self) -> str:
        """Why Redis cannot be reached, as far as is known without asking; empty when it can."""
        return self._redis.trouble

    async def add(self, job: NewJob) -> str:
        """Add a job and return its id. An id that exists already, finished or not, is not added again.

        Raises `ValueError` for an id or option that Node would refuse.
        """
        script, keys, args = self._command(job, checked_data(job), now_ms())
        return _added(await self._redis.run_script(script, keys, args))

    async def add_bulk(self, jobs: Sequence[NewJob]) -> list[str]:
        """Add many jobs in order and return their ids; all are checked before the first is sent.

        Not a transaction: after an error some may have been added, and adding them again with the same ids is harmless.
        """
        now, checked = now_ms(), [(job, checked_data(job)) for job in jobs]
        ids: list[str] = []
        for start in range(0, len(checked), BULK_CHUNK):
            chunk = checked[start : start + BULK_CHUNK]
            # One after the other, so that Redis works on the first while we still write the last.
            answers = await self._redis.run_scripts(self._command(job, data, now) for job, data in chunk)
            ids += [_added(answer) for answer in answers]
        return ids

    def _command(self, job: NewJob, data: bytes | str, now: int) -> ScriptCall:
        options = _options(job)
        script, parts = _how(job)
        deduplication = options.get("de")
        deduplication_key = f"{self._prefix}de:{deduplication['id']}" if deduplication else None
        packed = msgpack.packb([self._prefix, job.job_id or "", job.name, now, *[None] * 4, deduplication_key])
        return script, self._keys(parts), (packed, data, msgpack.packb(options), now)

    async def counts(self) -> QueueCounts:
        """Count the queue's jobs by state, in one round trip (a second one for the age of the oldest)."""
        call, key = self._redis.call, self.name.key
        waiting, active, completed, failed, delayed, prioritized, paused, oldest = await asyncio.gather(
            call("LLEN", key("wait")),
            call("LLEN", key("active")),
            call("ZCARD", key("completed")),
            call("ZCARD", key("failed")),
            call("ZCARD", key("delayed")),
            call("ZCARD", key("prioritized")),
            call("HEXISTS", key("meta"), "paused"),
            call("LINDEX", key("wait"), -1),
        )
        if prioritized and not oldest:
            oldest = next(iter(await call("ZRANGE", key("prioritized"), 0, 0)), None)
        age = await self._age_ms(oldest) if oldest else 0
        return QueueCounts(waiting, active, completed, failed, delayed, prioritized, bool(paused), age)

    async def depth(self) -> int:
        """Count the jobs that could run now; cheaper than `counts`."""
        waiting, prioritized = await asyncio.gather(
            self._redis.call("LLEN", self.name.key("wait")), self._redis.call("ZCARD", self.name.key("prioritized"))
        )
        return int(waiting) + int(prioritized)

    async def _age_ms(self, job_id: bytes) -> int:
        created, delay = await self._redis.call("HMGET", self._prefix.encode() + job_id, "timestamp", "delay")
        return max(0, now_ms() - read_integer(created) - read_integer(delay)) if created else 0

    async def unfinished(self, job_ids: Sequence[str]) -> set[str]:
        """Return those of the ids whose jobs wait, run or are put off: known, and neither completed nor failed."""
        call, key = self._redis.call, self.name.key
        found = await asyncio.gather(*(call("HMGET", key(job_id), "timestamp", "finishedOn") for job_id in job_ids))
        return {job_id for job_id, (added, finished) in zip(job_ids, found, strict=True) if added and not finished}

    async def remove_finished(self, job_ids: Sequence[str]) -> None:
        """Remove those jobs that are completed or failed, so that their ids can be added again."""
        keep = await self.unfinished(job_ids)
        key, repeat = self.name.key, self.name.key("repeat")
        finished = [job_id for job_id in job_ids if job_id not in keep]
        await self._redis.run_scripts((REMOVE, (key(id_), repeat), (id_, 0, self._prefix)) for id_ in finished)

    async def remove(self, job_id: str) -> bool:
        """Remove a job that nobody is at, whatever its state; false for one that is locked or made by a schedule."""
        keys = (self.name.key(job_id), self.name.key("repeat"))
        return int(await self._redis.run_script(REMOVE, keys, (job_id, 0, self._prefix))) == 1

    async def pause(self) -> None:
        """Stop every worker of this queue, Node's too, from taking jobs; those running finish."""
        await self._switch("wait", "paused", "paused")

    async def resume(self) -> None:
        """Undo `pause`."""
        await self._switch("paused", "wait", "resumed")

    async def _switch(self, source: str, target: str, state: str) -> None:
        parts = (source, target, "meta", "prioritized", "events", "delayed", "marker")
        await self._redis.run_script(PAUSE, [self.name.key(part) for part in parts], (state,))


def checked_data(job: NewJob) -> bytes | str:
    """Return a job's data as JSON; raises `ValueError` or `TypeError` for a job that cannot be added."""
    if refusal := _refuse(job):
        raise ValueError(refusal)
    return job.data if isinstance(job.data, bytes) else to_json(job.data)


def _refuse(job: NewJob) -> str | None:
    """Say why a job cannot be added as it is, or return `None`."""
    if job.job_id is not None and (refusal := refuse_job_id(job.job_id)):
        return refusal
    if not 0 <= job.priority <= HIGHEST_PRIORITY_NUMBER:
        return f"priority {job.priority}: must be between 0 and {HIGHEST_PRIORITY_NUMBER}"
    return refuse_options(job.options, job.data) if job.options else None


def _how(job: NewJob) -> tuple[Script, str]:
    if job.delay_ms > 0:
        return ADD_DELAYED, DELAYED_KEYS
    if job.priority > 0:
        return ADD_PRIORITIZED, PRIORITIZED_KEYS
    return ADD_STANDARD, STANDARD_KEYS


def _options(job: NewJob) -> dict[str, Any]:
    """Write BullMQ's `opts` as Node stores them."""
    options: dict[str, Any] = stored(job.options) if job.options else {"attempts": 0}
    if job.job_id is not None:
        options["jobId"] = job.job_id
    if job.delay_ms > 0:
        options["delay"] = job.delay_ms
    if job.priority > 0:
        options["priority"] = job.priority
    if job.lifo:
        options["lifo"] = True
    return options


def _added(answer: bytes | int) -> str:
    if isinstance(answer, int):
        raise RedisError(f"BullMQ refused to add the job: code {answer}")
    return answer.decode()
