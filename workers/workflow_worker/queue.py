"""The pgmq queue as the health page and the metrics show every queue."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker_runtime.bullmq.producer import QueueCounts
from worker_runtime.postgres import DatabaseUnavailable
from worker_runtime.watch import Uncountable

if TYPE_CHECKING:
    from workflow_worker.store.upkeep import UpkeepStore

__all__ = ["LABEL", "WorkflowQueue"]

LABEL = "workflow_execution_queue"
EVERY_SECONDS = 5.0
# Counting a backlog takes time: it shall take a fiftieth of the server's.
REST_PART = 50


@dataclass(frozen=True, slots=True)
class PgmqName:
    """What a queue of pgmq is called, everywhere."""

    label: str


class WorkflowQueue:
    """Counts it once in a while. Raises `Uncountable` while PostgreSQL does not answer."""

    def __init__(self, store: UpkeepStore) -> None:
        self.name = PgmqName(LABEL)
        self._store = store
        self._counts: QueueCounts | None = None
        self._good_until = 0.0

    async def counts(self) -> QueueCounts:
        """Return the counts, some seconds old; paused while the tick is not scheduled."""
        if self._counts is None or time.monotonic() > self._good_until:
            self._counts = await self._counted()
        return self._counts

    async def _counted(self) -> QueueCounts:
        began = time.monotonic()
        try:
            counts = await self._store.count()
        except DatabaseUnavailable as outage:
            raise Uncountable(str(outage)) from outage
        took = time.monotonic() - began
        self._good_until = time.monotonic() + max(EVERY_SECONDS, took * REST_PART)
        return QueueCounts(
            waiting=counts.waiting,
            active=counts.active,
            completed=counts.archived,
            failed=counts.dead,
            delayed=max(0, counts.later - counts.active),
            prioritized=0,
            paused=not counts.scheduled,
            oldest_waiting_ms=round(counts.oldest_seconds * 1000),
        )
