"""Keeps the outbox small and its lag known, beside the relay and never in its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from events_worker.store import DatabaseUnavailable
from worker_runtime.loops import Heartbeat

if TYPE_CHECKING:
    from events_worker.store import OutboxStore
    from worker_runtime.loops import StopSignal
    from worker_runtime.metrics import OutboxMetrics

log = structlog.get_logger()

ARCHIVE_AFTER_DAYS = 7
# Small enough for a delete that takes tens of milliseconds, so that no writer waits for it.
ARCHIVE_BATCH = 500
EVERY_SECONDS = 5.0


class Upkeep:
    """Measures the lag and archives finished events, a bounded batch at a time."""

    name = "outbox-upkeep"

    def __init__(self, store: OutboxStore, metrics: OutboxMetrics, *, every_seconds: float = EVERY_SECONDS) -> None:
        self.heartbeat = Heartbeat()
        self._store = store
        self._metrics = metrics
        self._every_seconds = every_seconds

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`."""
        while not stop.requested.is_set():
            more = await self.heartbeat.while_waiting(self._turn())
            if not more:
                await self._pause(stop)

    async def _turn(self) -> bool:
        """Do one round; true when there is more to archive."""
        try:
            await self._measure()
            return await self._store.archive(ARCHIVE_AFTER_DAYS, ARCHIVE_BATCH) == ARCHIVE_BATCH
        except DatabaseUnavailable as outage:
            # The relay polls the same server far more often and is the one to say so.
            log.debug("outbox_upkeep_waits", error=str(outage))
            return False

    async def _measure(self) -> None:
        lag = await self._store.lag()
        self._metrics.pending.set(lag.pending)
        self._metrics.oldest_age.set(lag.seconds)
        self._metrics.under_way.set(lag.under_way)
        self._metrics.blocked.set(lag.blocked)

    async def _pause(self, stop: StopSignal) -> None:
        await self.heartbeat.while_waiting(stop.sleep(self._every_seconds))
