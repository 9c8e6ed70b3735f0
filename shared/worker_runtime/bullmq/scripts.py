"""BullMQ's Lua, as shipped in the pinned `bullmq` package, called with the keys and arguments of one queue.

Everything here speaks bytes and answers with small values; what they mean for a job is decided elsewhere.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from worker_runtime.bullmq.claimed import NOTHING_ASKED, Answer, read_answer
from worker_runtime.redis.connection import Argument, RedisConnection, Script

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker_runtime.bullmq.claimed import Claim, ClaimedJob
    from worker_runtime.bullmq.names import QueueName

MISSING_JOB, MISSING_LOCK, CHILDREN_PENDING, CHILDREN_FAILED = -1, -2, -4, -9


def shipped(file: str) -> Script:
    """Load one of the package's scripts; the number in its name is how many keys it takes."""
    return Script((importlib.resources.files("bullmq") / "commands" / f"{file}.lua").read_text("utf-8"))


CLAIM = shipped("moveToActive-11")
FINISH = shipped("moveToFinished-14")
DELAY = shipped("moveToDelayed-11")
RETRY_NOW = shipped("retryJob-11")
HAND_BACK = shipped("moveJobFromActiveToWait-9")
RECOVER_STALLED = shipped("moveStalledJobsToWait-9")
NEXT_OF_SCHEDULE = shipped("updateJobScheduler-12")

# Renews our locks, and retakes those that expired while Redis was away and that nobody took since: such a job is still
# in `active`, for only a stalled pass moves it out, so the script cannot steal it. Answers with the ids we have lost.
RENEW = Script("""
local lost = {}
for i = 4, #ARGV do
  local id, lock = ARGV[i], ARGV[1] .. ARGV[i] .. ":lock"
  local owner = redis.call("GET", lock)
  if owner == ARGV[2] or (not owner and redis.call("LPOS", KEYS[2], id)) then
    redis.call("SET", lock, ARGV[2], "PX", ARGV[3])
    redis.call("SREM", KEYS[1], id)
  else
    lost[#lost + 1] = id
  end
end
return lost
""")

# What in `active` is locked by our token: compared with what we run, it shows claims whose answer never arrived. BullMQ
# counts a job's claims in `ats`, so that one can be told from the next.
HELD_BY = Script("""
local held = {}
for _, id in ipairs(redis.call("LRANGE", KEYS[1], 0, -1)) do
  if redis.call("GET", ARGV[1] .. id .. ":lock") == ARGV[2] then
    held[#held + 1] = {id, redis.call("HGET", ARGV[1] .. id, "ats") or ""}
  end
end
return held
""")

# Whether a claim is still the newest and unsettled. The lock does not tell: it may be ours by a later claim of the job.
STILL_CLAIMED = Script("""
return redis.call("HGET", KEYS[1], "ats") == ARGV[2] and redis.call("LPOS", KEYS[2], ARGV[1]) and 1 or 0
""")

# Whether the job that a claim would take was put in front of the others.
URGENT_WAITS = Script("""
local id = redis.call("LINDEX", KEYS[1], -1)
local options = id and redis.call("HGET", ARGV[1] .. id, "opts")
return options and string.find(options, '"lifo":true', 1, true) and 1 or 0
""")


def parent_flags(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the failure of a child means to its parent, by BullMQ's short names."""
    return tuple(flag for flag in ("fpof", "cpof", "idof", "rdof") if options.get(flag))


def pack_fields(names_and_values: Sequence[str]) -> bytes:
    """Pack hash fields to write, name after name and value, as the scripts take them."""
    packed: bytes = msgpack.packb(list(names_and_values)) if names_and_values else b""
    return packed


def now_ms() -> int:
    """Milliseconds since the epoch by this machine's clock, as Node's worker sends them."""
    return int(time.time() * 1000)


@dataclass(frozen=True, slots=True)
class Limit:
    """BullMQ's own rate limiter: at most `max` jobs of the queue start in any `duration_ms`, over all workers."""

    max: int
    duration_ms: int


class QueueScripts:
    """The worker's side of one queue."""

    def __init__(
        self,
        redis: RedisConnection,
        queue: QueueName,
        *,
        token: str,
        worker: str,
        lock_ms: int,
        limit: Limit | None,
        metrics_minutes: int,
    ) -> None:
        self._redis = redis
        self._key = functools.lru_cache(maxsize=64)(lambda part: queue.key(part).encode())
        self._prefix = queue.key("").encode()
        self._token = token
        self._lock_ms = lock_ms
        self._metrics_minutes = metrics_minutes or ""
        self._worker_options = {
            "token": token,
            "lockDuration": lock_ms,
            "name": worker,
            "limiter": {"max": limit.max, "duration": limit.duration_ms} if limit else None,
        }
        self._packed_worker_options = msgpack.packb(self._worker_options)
        self._claim_keys = self._keys("wait active prioritized events stalled limiter delayed paused meta pc marker")
        self._finish_keys = {
            target: (
                self._keys(f"wait active prioritized events stalled limiter delayed paused meta pc {target.decode()}"),
                self._keys(f"metrics:{target.decode()} marker"),
            )
            for target in (b"completed", b"failed")
        }
        self._finish_options = functools.lru_cache(maxsize=256)(self._pack_finish_options)

    def _keys(self, parts: str) -> tuple[bytes, ...]:
        return tuple(self._key(part) for part in parts.split())

    async def claim(self) -> Answer:
        """Take the next job, if there is one that may run now."""
        args = (self._prefix, now_ms(), self._packed_worker_options)
        return read_answer(await self._redis.run_script(CLAIM, self._claim_keys, args))

    async def urgent_waits(self) -> bool:
        """Whether the next job in line is one that was added `lifo`."""
        return bool(await self._redis.run_script(URGENT_WAITS, self._keys("wait"), (self._prefix,)))

    async def complete(self, job: ClaimedJob, result: bytes, keep: Mapping[str, Any], *, fetch: bool) -> Answer:
        """Move a job to `completed` with its JSON result and, with `fetch`, take the next one."""
        return await self._finish(job, b"completed", b"returnvalue", result, keep, 0, (), fetch=fetch)

    async def fail(
        self, job: ClaimedJob, reason: str, stack: list[str], keep: Mapping[str, Any], attempts: int, *, fetch: bool
    ) -> Answer:
        """Move a job to `failed`, the dead-letter queue, and, with `fetch`, take the next one.

        When it has made all its `attempts`, Node's QueueEvents hear `retries-exhausted`.
        """
        fields = (pack_fields(["stacktrace", json.dumps(stack)]),)
        return await self._finish(job, b"failed", b"failedReason", reason.encode(), keep, attempts, fields, fetch=fetch)

    async def _finish(
        self,
        job: ClaimedJob,
        target: bytes,
        field_name: bytes,
        value: bytes,
        keep: Mapping[str, Any],
        attempts: int,
        fields: tuple[bytes, ...],
        *,
        fetch: bool,
    ) -> Answer:
        before_job, after_job = self._finish_keys[target]
        keys = (*before_job, self._prefix + job.id, *after_job)
        flags = parent_flags(job.options) if b"parentKey" in job.fields else ()
        packed = self._finish_options(tuple(keep.items()), attempts, flags)
        ending = (job.id, now_ms(), field_name, value, target)
        args: tuple[Argument, ...] = (*ending, b"1" if fetch else b"", self._prefix, packed, *fields)
        answer = read_answer(await self._redis.run_script(FINISH, keys, args))
        return answer if fetch or answer.code else NOTHING_ASKED

    def _pack_finish_options(self, keep: tuple[tuple[str, Any], ...], attempts: int, flags: tuple[str, ...]) -> bytes:
        job_options = {"keepJobs": dict(keep), "attempts": attempts, "maxMetricsSize": self._metrics_minutes}
        packed: bytes = msgpack.packb(self._worker_options | job_options | dict.fromkeys(flags, True))
        return packed

    async def delay(
        self, job: ClaimedJob, delay_ms: int, *, costs_attempt: bool, fields: Sequence[str], fetch: bool
    ) -> Answer:
        """Move a job to `delayed`; `fields` are names and values to write into its hash."""
        keys = (
            *(self._key(part) for part in ("marker", "active", "prioritized", "delayed")),
            self._prefix + job.id,
            *(self._key(part) for part in ("events", "meta", "stalled", "wait", "limiter", "pc")),
        )
        args = (
            self._prefix,
            now_ms(),
            job.id,
            self._token,
            delay_ms,
            b"0" if costs_attempt else b"1",
            pack_fields(fields),
            b"1" if fetch else b"0",
            self._packed_worker_options,
        )
        answer = read_answer(await self._redis.run_script(DELAY, keys, args))
        return answer if fetch or answer.code else NOTHING_ASKED

    async def retry_now(self, job: ClaimedJob, fields: Sequence[str]) -> Answer:
        """Move a job back to `wait` behind the others (to its priority, if it has one), one attempt poorer."""
        keys = (
            *(self._key(part) for part in ("active", "wait", "paused")),
            self._prefix + job.id,
            *(self._key(part) for part in ("meta", "events", "delayed", "prioritized", "pc", "marker", "stalled")),
        )
        push = b"RPUSH" if job.options.get("lifo") else b"LPUSH"
        args = (self._prefix, now_ms(), push, job.id, self._token, pack_fields(fields))
        return Answer(code=min(0, int(await self._redis.run_script(RETRY_NOW, keys, args))), asked=False)

    async def hand_back(self, job_id: bytes) -> int:
        """Put a job back at the head of its queue, attempts untouched; negative when it was no longer ours."""
        keys = self._keys("active wait stalled paused meta limiter prioritized marker events")
        moved = self._redis.run_script(HAND_BACK, keys, (job_id, self._token, self._prefix + job_id))
        answer = int(await moved)
        if answer >= 0:
            # The script leaves the marker out for a prioritised job, and nobody would wake up for it.
            await self.wake_somebody()
        return answer

    async def wake_somebody(self) -> None:
        """Set the marker that idle workers block on; one wake-up too many is harmless, one too few is a stall."""
        await self._redis.call("ZADD", self._key("marker"), 0, "0")

    async def renew(self, job_ids: Sequence[bytes]) -> list[bytes]:
        """Extend (or retake) our locks and return the ids that belong to somebody else now."""
        args: tuple[Argument, ...] = (self._prefix, self._token, self._lock_ms, *job_ids)
        lost: list[bytes] = await self._redis.run_script(RENEW, self._keys("stalled active"), args)
        return lost

    async def still_claimed(self, job: ClaimedJob) -> bool:
        """Whether no settlement of this claim has come through."""
        keys = (self._prefix + job.id, self._key("active"))
        return bool(await self._redis.run_script(STILL_CLAIMED, keys, job.claim))

    async def held_by_us(self) -> set[Claim]:
        """Return the jobs in `active` that carry our lock."""
        args = (self._prefix, self._token)
        held: list[list[bytes]] = await self._redis.run_script(HELD_BY, self._keys("active"), args)
        return {(job_id, start) for job_id, start in held}

    async def recover_stalled(self, *, max_stalls: int, interval_ms: int) -> list[bytes]:
        """Move jobs whose worker died back to `wait`; the pass after the one that first saw them without a lock.

        The check key is our own: a Node worker's pass every 30 s must not stand in for ours.
        """
        parts = "stalled wait active stalled-check-py meta paused marker events repeat"
        args = (max_stalls, self._prefix, now_ms(), interval_ms)
        stalled: list[bytes] = await self._redis.run_script(RECOVER_STALLED, self._keys(parts), args)
        return stalled

    async def make_next_of_schedule(
        self, job: ClaimedJob, scheduler: bytes, due_ms: int, options: Mapping[str, Any]
    ) -> None:
        """Add the job that follows this one in its schedule, from the scheduler's template."""
        keys = (
            *self._keys("repeat delayed wait paused meta prioritized marker id events pc"),
            self._prefix + job.id,
            self._key("active"),
        )
        # The template in Redis is used; the data given here is for schedules made by very old versions.
        data = job.fields.get(b"data", b"{}")
        args = (due_ms, scheduler, data, msgpack.packb(options), now_ms(), self._prefix, job.id)
        await self._redis.run_script(NEXT_OF_SCHEDULE, keys, args)
