"""What a queue looks like when its jobs are done, without what differs from run to run.

Two workers that treat jobs alike leave the same behind.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from worker_runtime.bullmq.connection import RedisConnection
    from worker_runtime.bullmq.names import QueueName

LISTS = ("wait", "active", "paused")
SORTED_SETS = ("completed", "failed", "delayed", "prioritized", "waiting-children")
# Clocks, and our own note of a deferral, which Node ignores.
VOLATILE = {"timestamp", "processedOn", "finishedOn", "deferredSince"}
# `data` is a job's payload, and in a `progress` event what was reported.
JSON_FIELDS = {"returnvalue", "progress", "data"}
OUR_CODE = re.compile(r"^[A-Z_]+: (?:\w+: )?")


@dataclass(frozen=True)
class Aftermath:
    """Ids by state, each job's hash, and the event stream."""

    states: dict[str, set[str]]
    jobs: dict[str, dict[str, Any]]
    events: list[dict[str, Any]]
    other_keys: set[str]


async def aftermath(redis: RedisConnection, queue: QueueName) -> Aftermath:
    states = {part: set(await members(redis, queue.key(part))) for part in (*LISTS, *SORTED_SETS)}
    jobs = {job_id: await job(redis, queue.key(job_id)) for ids in states.values() for job_id in ids}
    return Aftermath(states, jobs, await events(redis, queue), await other_keys(redis, queue, set(jobs)))


async def members(redis: RedisConnection, key: str) -> list[str]:
    command = "LRANGE" if key.rpartition(":")[2] in LISTS else "ZRANGE"
    return [member.decode() for member in await redis.call(command, key, 0, -1)]


async def job(redis: RedisConnection, key: str) -> dict[str, Any]:
    """Return a job's hash, its stacks as their number."""
    fields = pairs(await redis.call("HGETALL", key))
    kept = {name: value for name, value in fields.items() if name not in VOLATILE and value}
    if "stacktrace" in kept:
        stacks = json.loads(kept["stacktrace"])
        assert all(isinstance(stack, str) for stack in stacks)
        kept["stacktrace"] = str(len(stacks))
    return readable(kept) | {"opts": json.loads(fields["opts"])}


async def events(redis: RedisConnection, queue: QueueName) -> list[dict[str, Any]]:
    entries = [pairs(fields) for _, fields in await redis.call("XRANGE", queue.key("events"), "-", "+")]
    return [readable({name: value for name, value in entry.items() if name != "delay"}) for entry in entries]


async def other_keys(redis: RedisConnection, queue: QueueName, ids: set[str]) -> set[str]:
    prefix = queue.key("")
    found = {key.decode().removeprefix(prefix) for key in await redis.call("KEYS", f"{prefix}*")}
    # Who looked for stalled jobs, and when, and whether anybody sleeps, is each worker's own affair.
    affairs = {"stalled-check", "stalled-check-py", "stalled", "marker"}
    return found - ids - affairs - {*LISTS, *SORTED_SETS}


def pairs(flat: list[bytes]) -> dict[str, str]:
    texts = [value.decode() for value in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def readable(fields: dict[str, str]) -> dict[str, Any]:
    """Reduce what the two write differently to what it means: JSON's escapes, and the code before our reasons.

    `HANDLER_FAILED: RuntimeError: no` and `REFUSED: no` say what Node's `no` says.
    """
    read: dict[str, Any] = dict(fields)
    read |= {name: json.loads(fields[name]) for name in JSON_FIELDS & fields.keys()}
    if "failedReason" in read:
        read["failedReason"] = OUR_CODE.sub("", read["failedReason"])
    return read


async def until(condition: Callable[[], Awaitable[bool]], within: float = 15.0) -> None:
    """Ask Redis again and again until it is so; fails after `within` seconds."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110  Redis cannot tell us; asking is the event
            await asyncio.sleep(0.01)
