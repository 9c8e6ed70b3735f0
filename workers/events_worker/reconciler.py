"""Finds events that are under way and of which the queue knows nothing, and publishes them again.

A relay died between claiming and publishing; Redis lost its tail, its data or, by somebody's hand, a job. Events whose
jobs wait, run or are put off are left alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from worker_runtime.loops import Heartbeat, wait_at_most
from worker_runtime.postgres import DatabaseUnavailable
from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from events_worker.partitions import Partitions
    from events_worker.publisher import Publisher
    from events_worker.store import OutboxStore
    from worker_runtime.bullmq.producer import JobQueue
    from worker_runtime.loops import StopSignal
    from worker_runtime.metrics import OutboxMetrics

log = structlog.get_logger()

# Longer than publishing a batch takes, and than a job runs between its handlers' end and its own.
SETTLED_SECONDS = 10.0
EVERY_SECONDS = 5.0
PAGE = 500
# With their payloads in memory, which may be large.
MOST_TOGETHER = 20
# A long queue is looked through in seconds, and never in the way of those who work on it.
PAGE_PAUSE_SECONDS = 0.05
FIRST_ID = "00000000-0000-0000-0000-000000000000"


class Reconciler:
    """Looks through what is under way in our partitions, a page at a time, and at once when we took one over."""

    name = "outbox-reconciler"

    def __init__(
        self,
        store: OutboxStore,
        queue: JobQueue,
        publisher: Publisher,
        partitions: Partitions,
        metrics: OutboxMetrics,
        *,
        settled_seconds: float = SETTLED_SECONDS,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self.heartbeat = Heartbeat()
        self._store = store
        self._queue = queue
        self._publisher = publisher
        self._partitions = partitions
        self._metrics = metrics
        self._settled_seconds = settled_seconds
        self._every_seconds = every_seconds

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`."""
        while not stop.requested.is_set():
            await self.heartbeat.while_waiting(self._round(stop))
            waits = (stop.requested.wait(), self._partitions.taken.wait())
            await self.heartbeat.while_waiting(wait_at_most(self._every_seconds, *waits))

    async def _round(self, stop: StopSignal) -> None:
        self._partitions.taken.clear()
        try:
            await self.reconcile(stop)
        except (DatabaseUnavailable, RedisUnavailable, RedisError) as outage:
            log.debug("outbox_reconciler_waits", error=str(outage))

    async def reconcile(self, stop: StopSignal) -> None:
        """Look through everything once."""
        after = FIRST_ID
        while not stop.requested.is_set():
            page = await self._store.under_way(list(self._partitions.tokens), self._settled_seconds, after, PAGE)
            if not page:
                return
            after = page[-1]
            await self._publish_missing(page)
            await asyncio.sleep(PAGE_PAUSE_SECONDS)

    async def _publish_missing(self, event_ids: Sequence[str]) -> None:
        unfinished = await self._queue.unfinished(event_ids)
        missing = [event_id for event_id in event_ids if event_id not in unfinished]
        if not missing:
            return
        for start in range(0, len(missing), MOST_TOGETHER):
            await self._publish_again(missing[start : start + MOST_TOGETHER])

    async def _publish_again(self, missing: Sequence[str]) -> None:
        # Asked again, and after the queue: what has been handled or buried meanwhile is not missing.
        events = await self._store.still_under_way(missing)
        await self._publisher.publish(events)
        if events:
            log.warning("outbox_events_published_again", events=len(events), first=events[0].id)
            self._metrics.reconciled.inc(len(events))
        if len(events) < len(missing) and (rowless := await self._store.forget_rowless(missing)):
            log.error("outbox_events_without_a_row", events=len(rowless), first=rowless[0])
