"""What a queue looks like when its jobs are done, without what differs from run to run and its prefix.

Two workers that treat jobs alike leave the same behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from worker_runtime.bullmq.names import QueueName
    from worker_runtime.redis.connection import RedisConnection

LISTS = ("wait", "active", "paused")
# Those whose order is a promise, and those ordered by moments, which two jobs may share.
SORTED_SETS = ("prioritized", "completed", "failed", "delayed", "waiting-children")
STATES = (*LISTS, *SORTED_SETS)
# Who looked for stalled jobs, and when, whether anybody sleeps, and what a limit's window has left: passing affairs.
PASSING = {"stalled-check", "stalled-check-py", "stalled", "marker", "limiter", "events"}
CLOCKS = {"timestamp", "processedOn", "finishedOn", "deferredSince"}
# `data` is a job's payload, and in a `progress` event what was reported.
JSON_FIELDS = {"returnvalue", "progress", "data", "opts"}
# What a schedule's options owe to the moment; `delay` too, but elsewhere that is what somebody asked for.
# Written once, by whoever adds the first job.
PRODUCER = {"version"}
MOMENTS = {"prevMillis", "timestamp", "offset", "startDate", "endDate", "delay"}
OUR_CODE = re.compile(r"^[A-Z_]+: (?:\w+: )?")
SCHEDULED_ID = re.compile(r"(repeat:[^:]+):(\d{13})")

Facts = dict[str, Any]


@dataclass(frozen=True)
class Aftermath:
    """Ids by state, each job's hash, what else the queue keeps, and the event stream."""

    states: dict[str, list[str]]
    jobs: dict[str, Facts]
    others: Facts
    events: list[Facts]

    def facts(self) -> Facts:
        """Everything by its path, so that two aftermaths can be told apart fact by fact."""
        jobs = {f"{job_id}.{field}": value for job_id, job in self.jobs.items() for field, value in job.items()}
        return {**self.states, **jobs, **self.others, **self._told()}

    def _told(self) -> Facts:
        """Return which events there were, in order, and what each said: a list, for it may have come more than once."""
        heard: Facts = {"events": []}
        for event in self.events:
            title = " ".join(event[name] for name in ("event", "jobId") if name in event)
            heard["events"].append(title)
            for name in sorted(event.keys() - {"event", "jobId"}):
                heard.setdefault(f"{title}: {name}", []).append(event[name])
        return heard


async def aftermath(redis: RedisConnection, queue: QueueName) -> Aftermath:
    found = Reader(redis, queue)
    states = {part: await found.members(part) for part in STATES}
    jobs = {job_id: await found.job(job_id) for ids in states.values() for job_id in ids}
    left = [states, jobs, await found.others(set(jobs)), await found.events()]
    return Aftermath(*json.loads(numbered(json.dumps(left).replace(f"{queue.prefix}:", ""))))


class Reader:
    """Reads one queue's keys."""

    def __init__(self, redis: RedisConnection, queue: QueueName) -> None:
        self._call = redis.call
        self._queue = queue

    async def members(self, part: str) -> list[str]:
        key = self._queue.key(part)
        members = texts(await (self._call("LRANGE", key, 0, -1) if part in LISTS else self._call("ZRANGE", key, 0, -1)))
        return members if part in LISTS or part == "prioritized" else sorted(members)

    async def job(self, job_id: str) -> Facts:
        """Return a job's hash, its stacks as their number."""
        fields = pairs(await self._call("HGETALL", self._queue.key(job_id)))
        kept = {name: "a moment" if name in CLOCKS and value else value for name, value in fields.items()}
        if "stacktrace" in kept:
            stacks = json.loads(kept["stacktrace"])
            assert all(isinstance(stack, str) for stack in stacks)
            kept["stacktrace"] = str(len(stacks))
        return timeless(readable(kept)) if "rjk" in fields else readable(kept)

    async def events(self) -> list[Facts]:
        entries = [pairs(fields) for _, fields in await self._call("XRANGE", self._queue.key("events"), "-", "+")]
        return [readable({name: value for name, value in entry.items() if name != "delay"}) for entry in entries]

    async def others(self, ids: set[str]) -> Facts:
        """Return whatever else there is under the queue's prefix, by key."""
        prefix = self._queue.key("")
        keys = {key.removeprefix(prefix) for key in texts(await self._call("KEYS", f"{prefix}*"))}
        return {key: await self._content(key) for key in sorted(keys - ids - PASSING - {*STATES})}

    async def _content(self, part: str) -> Any:
        key = self._queue.key(part)
        kind = await self._call("TYPE", key)
        # A status, which hiredis hands over as text where everything else is bytes.
        match kind if isinstance(kind, str) else kind.decode():
            case "hash":
                found: Any = timeless(readable(pairs(await self._call("HGETALL", key))))
            case "list":
                found = texts(await self._call("LRANGE", key, 0, -1))
            case "set":
                found = sorted(texts(await self._call("SMEMBERS", key)))
            case "zset":
                found = sorted(texts(await self._call("ZRANGE", key, 0, -1)))
            case _:
                found = (await self._call("GET", key)).decode()
        return reduced(part, found)


def reduced(part: str, found: Any) -> Any:
    """Leave out whose lock it is, and how BullMQ's counters were spread over the minutes."""
    if part.endswith(":lock"):
        return "a token"
    if part.startswith("metrics:"):
        return found["count"] if isinstance(found, dict) else "by the minute"
    return found


def texts(raw: Any) -> list[str]:
    return [one.decode() for one in raw]


def pairs(flat: list[bytes]) -> dict[str, str]:
    words = texts(flat)
    return dict(zip(words[::2], words[1::2], strict=True))


def readable(fields: dict[str, str]) -> Facts:
    """Reduce what the two write differently to what it means: JSON's escapes, and the code before our reasons.

    `HANDLER_FAILED: RuntimeError: no` and `REFUSED: no` say what Node's `no` says.
    """
    read: Facts = dict(fields)
    for name in JSON_FIELDS & fields.keys():
        with contextlib.suppress(ValueError):  # Some scenarios break it.
            read[name] = json.loads(fields[name])
    return {name: without_codes(value) for name, value in read.items()}


def without_codes(value: Any) -> Any:
    """Reduce reasons, however deep: a parent may have returned those of its children."""
    match value:
        case str():
            return OUR_CODE.sub("", value)
        case dict():
            return {name: without_codes(inner) for name, inner in value.items()}
    return value


def timeless(value: Any) -> Any:
    """Reduce the moments in what a schedule has written, however deep, to the fact that they are there."""
    if not isinstance(value, dict):
        return value
    kept = {name: inner for name, inner in value.items() if name not in PRODUCER}
    return {name: "a moment" if name in MOMENTS and inner else timeless(inner) for name, inner in kept.items()}


def numbered(text: str) -> str:
    """Call a schedule's jobs by their number: the moment in their ids is another one each time."""
    last: Counter[str] = Counter()
    for schedule, moment in sorted(set(SCHEDULED_ID.findall(text))):
        last[schedule] += 1
        text = text.replace(f"{schedule}:{moment}", f"{schedule}:#{last[schedule]}")
    return text


async def until(condition: Callable[[], Awaitable[bool]], within: float = 15.0) -> None:
    """Ask Redis again and again until it is so; fails after `within` seconds."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110  Redis cannot tell us; asking is the event
            await asyncio.sleep(0.01)
