"""The relay: committed events leave the outbox for the queue, each at least once and, by its id, as one job."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from events_worker.outbox import backoff_seconds, sort_out
from events_worker.store import DatabaseUnavailable
from worker_runtime.loops import Heartbeat
from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from events_worker.outbox import Batch
    from events_worker.store import OutboxStore
    from worker_runtime.bullmq.producer import JobQueue
    from worker_runtime.loops import StopSignal
    from worker_runtime.metrics import OutboxMetrics

log = structlog.get_logger()

# None of these is an event's fault: it stays pending, keeps its retries and is published when the server is back.
OUTAGES = (DatabaseUnavailable, RedisUnavailable, RedisError)


class Relay:
    """Polls the outbox and publishes what is due. Any number may run: a second one publishes the same job ids."""

    name = "outbox-relay"

    def __init__(
        self,
        store: OutboxStore,
        events: JobQueue,
        metrics: OutboxMetrics,
        *,
        batch_size: int,
        poll_seconds: float,
        max_job_bytes: int,
    ) -> None:
        self.heartbeat = Heartbeat()
        # Set while the last look at the outbox found nothing; what `--drain` waits for.
        self.drained = asyncio.Event()
        self._store = store
        self._events = events
        self._metrics = metrics
        self._batch_size = batch_size
        self._poll_seconds = poll_seconds
        self._max_job_bytes = max_job_bytes
        self._failures_in_a_row = 0

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`. A batch that was read is published and settled before the return."""
        while not stop.requested.is_set():
            pause = await self.heartbeat.while_waiting(self._turn())
            if pause > 0:
                await self.heartbeat.while_waiting(stop.sleep(pause))

    async def relay_batch(self) -> int:
        """Publish and settle the events that are due, at most one batch; return how many there were."""
        events = await self._store.pending(self._batch_size, self._max_job_bytes)
        self._metrics.batch_size.set(len(events))
        if events:
            batch = sort_out(events, self._max_job_bytes)
            await self._events.add_bulk(batch.jobs)
            await self._settle(batch)
        return len(events)

    async def _turn(self) -> float:
        """Relay one batch and return the seconds until the next."""
        try:
            handled = await self.relay_batch()
        except OUTAGES as outage:
            self.drained.clear()
            return self._wait_out(outage)
        self._note_recovery()
        if handled:
            self.drained.clear()
        else:
            self.drained.set()
        return 0.0 if handled == self._batch_size else self._poll_seconds

    async def _settle(self, batch: Batch) -> None:
        settled = await self._store.settle([job.job_id for job in batch.jobs if job.job_id], batch.unpublishable)
        self._metrics.published.inc(settled.published)
        self._metrics.failed.inc(settled.dead)
        for verdict in batch.unpublishable:
            log.error("outbox_event_dead_lettered", eventId=verdict.event_id, reason=verdict.reason)

    def _wait_out(self, outage: Exception) -> float:
        self._failures_in_a_row += 1
        self._metrics.relay_errors[_dependency(outage)].inc()
        if self._failures_in_a_row == 1:
            log.warning("outbox_relay_waits", dependency=_dependency(outage), error=str(outage))
        return backoff_seconds(self._failures_in_a_row)

    def _note_recovery(self) -> None:
        if self._failures_in_a_row:
            log.info("outbox_relay_works_again", failedPolls=self._failures_in_a_row)
            self._failures_in_a_row = 0


def _dependency(outage: Exception) -> str:
    return "postgres" if isinstance(outage, DatabaseUnavailable) else "redis"
