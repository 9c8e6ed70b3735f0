"""What Redis holds of a person: jobs of every queue, in every state, and the workers' small notes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from worker_runtime.bullmq.claimed import read_integer
from worker_runtime.bullmq.inspection import job_report
from worker_runtime.bullmq.names import PARTS
from worker_runtime.bullmq.producer import JobQueue
from worker_runtime.bullmq.scripts import now_ms
from worker_runtime.settings.queues import QUEUES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker_ops.person.address import Person
    from worker_ops.person.store import Search
    from worker_runtime.redis.connection import RedisConnection
    from worker_runtime.settings import WorkerSettings

# Keys that the server looks at for one answer, and hashes read at a time: a job may have megabytes.
SCANNED = 500
READ_TOGETHER = 20
# A job that no list knows is lost, or on its way from one to another: what somebody holds cannot be removed anyway.
FINISHED = ("completed", "failed", "unknown")
SCHEDULE = "schedule"


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A hash that holds an address: of a queue, or (`queue` is `None`) the workers' own note under that key."""

    queue: str | None
    name: str
    state: str

    @property
    def may_go(self) -> bool:
        """Whether it can be removed: what is being done cannot; of a notification, what is still to be done can."""
        if self.state in ("active", SCHEDULE):
            return False
        return self.queue is None or is_notification(self.queue) or self.state in FINISHED


class PersonJobs:
    """Every method may raise `RedisUnavailable` and `RedisError`."""

    def __init__(self, redis: RedisConnection, settings: WorkerSettings) -> None:
        self._redis = redis
        self._names = {key: settings.queue_name(key) for key in QUEUES}
        self._state = f"{settings.queue_prefix}:state:"

    def label(self, queue: str) -> str:
        """Return how people call a queue."""
        return self._names[queue].label

    async def find(self, search: Search) -> AsyncIterator[list[HeldJob]]:
        """Look at every hash there is, some at a time. What is there all the while is found, wherever it moves."""
        for node in await self._nodes():
            cursor = b"0"
            while True:
                cursor, keys = await node.call("SCAN", cursor, "COUNT", SCANNED, "TYPE", "hash")
                ours = [(key, place) for key in keys if (place := self._place(key)) is not None]
                for start in range(0, len(ours), READ_TOGETHER):
                    yield await self._held(ours[start : start + READ_TOGETHER], search)
                if cursor == b"0":
                    break

    async def remove(self, jobs: Sequence[HeldJob]) -> None:
        """Remove what may go; a job that somebody has taken meanwhile stays."""
        for job in jobs:
            if not job.may_go:
                continue
            if job.queue is None:
                await self._redis.call("DEL", job.name)
            else:
                await JobQueue(self._redis, self._names[job.queue]).remove(job.name)

    async def _nodes(self) -> list[RedisConnection]:
        keys = [self._state, *(name.key("meta") for name in self._names.values())]
        return list(dict.fromkeys([await self._redis.server_of(key) for key in keys]))

    def _place(self, raw: bytes) -> tuple[str | None, str] | None:
        """Say which job of which queue a key is, or which note; `None`: nothing of ours that could hold an address."""
        key = raw.decode("utf-8", "backslashreplace")
        if key.startswith(self._state):
            return None, key
        for queue, name in self._names.items():
            if key.startswith(prefix := name.key("")):
                rest = key.removeprefix(prefix)
                return (queue, job_of(rest)) if rest not in PARTS else None
        return None

    async def _held(self, places: Sequence[tuple[bytes, tuple[str | None, str]]], search: Search) -> list[HeldJob]:
        hashes = await asyncio.gather(*(self._redis.call("HGETALL", key) for key, _ in places))
        found = {
            place: fields
            for (key, place), fields in zip(places, hashes, strict=True)
            if holds(search.person, key, fields) and is_of(search.tenant, fields)
        }
        return [HeldJob(*place, await self._state_of(*place, fields)) for place, fields in found.items()]

    async def _state_of(self, queue: str | None, name: str, fields: Sequence[bytes]) -> str:
        if queue is None:
            return "active" if is_sending(fields) else "note"
        if name.startswith("repeat:") and name.count(":") == 1:
            return SCHEDULE
        report = await job_report(self._redis, self._names[queue], name)
        return report.state if report else "unknown"


def is_notification(queue: str) -> bool:
    """Tell whether that queue's jobs are messages to people."""
    return QUEUES[queue].under == ":notifications"


def job_of(rest: str) -> str:
    """Return the job that the rest of a key belongs to: its own hash, or that of its children's results."""
    return rest.removesuffix(":processed").removesuffix(":failed")


def holds(person: Person, key: bytes, flat: Sequence[bytes]) -> bool:
    """Tell whether a key or a hash's fields hold an address."""
    texts = (part.decode("utf-8", "replace") for part in (unquote_to_bytes(key), *flat))
    return any(person.is_in(text) for text in texts)


def is_sending(flat: Sequence[bytes]) -> bool:
    """Tell whether a note is that of a delivery which somebody has the right to send now."""
    note = dict(zip(flat[::2], flat[1::2], strict=True))
    return note.get(b"state") == b"sending" and read_integer(note.get(b"until")) > now_ms()


def is_of(tenant: str | None, flat: Sequence[bytes]) -> bool:
    """Tell whether a job's data names that tenant; what names none is any tenant's."""
    if tenant is None:
        return True
    data: Any = None
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        if name == b"data":
            try:
                data = json.loads(value)
            except (ValueError, RecursionError):
                return False
    return isinstance(data, Mapping) and data.get("tenantId") == tenant
