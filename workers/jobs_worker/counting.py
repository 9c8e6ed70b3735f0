"""The queues in the database as the health page and the metrics show every queue."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs_worker.store import QueueDepth
from worker_runtime.bullmq.producer import QueueCounts
from worker_runtime.postgres import DatabaseUnavailable
from worker_runtime.watch import Uncountable

if TYPE_CHECKING:
    from jobs_worker.store import JobStore

__all__ = ["CountedQueue", "Depths"]

EVERY_SECONDS = 5.0
# Counting a backlog takes time: it shall take a fiftieth of the server's.
REST_PART = 50


class Depths:
    """Counts all queues together, once in a while."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._depths: dict[str, QueueDepth] = {}
        self._good_until = 0.0

    async def of(self, queue: str) -> QueueDepth:
        """Return how full a queue is, some seconds old; raises `Uncountable`."""
        if time.monotonic() > self._good_until:
            await self._count()
        return self._depths.get(queue, QueueDepth())

    async def _count(self) -> None:
        began = time.monotonic()
        # Whoever asks meanwhile gets what there is.
        self._good_until = began + EVERY_SECONDS
        try:
            self._depths = await self._store.depths()
        except DatabaseUnavailable as outage:
            self._good_until = 0.0
            raise Uncountable(str(outage)) from outage
        took = time.monotonic() - began
        self._good_until = time.monotonic() + max(EVERY_SECONDS, took * REST_PART)


@dataclass(frozen=True, slots=True)
class Name:
    """What a queue is called."""

    label: str


class CountedQueue:
    """One of the queues."""

    def __init__(self, queue: str, depths: Depths) -> None:
        self.name = Name(queue)
        self._depths = depths

    async def counts(self) -> QueueCounts:
        """Return the counts; `completed` is not counted, for it would take a look at every job there was."""
        depth = await self._depths.of(self.name.label)
        return QueueCounts(
            waiting=depth.waiting,
            active=depth.doing,
            completed=0,
            failed=depth.failed,
            delayed=depth.later,
            prioritized=0,
            paused=False,
            oldest_waiting_ms=round(depth.oldest_seconds * 1000),
        )
