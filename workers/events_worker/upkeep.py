"""Keeps the outbox small and its lag known, beside the relay and never in its way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from worker_runtime.loops import Heartbeat
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from events_worker.store import UpkeepStore
    from worker_runtime.loops import StopSignal
    from worker_runtime.metrics import OutboxMetrics

log = structlog.get_logger()

ARCHIVE_AFTER_DAYS = 7
EVERY_SECONDS = 5.0


class Upkeep:
    """Measures the lag, archives finished events and purges the archive, a short sweep at a time.

    `purge_days` after its commit an archived event is deleted for good; 0: never.
    """

    name = "outbox-upkeep"

    def __init__(
        self,
        store: UpkeepStore,
        metrics: OutboxMetrics,
        *,
        purge_days: int = 0,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self.heartbeat = Heartbeat()
        self._store = store
        self._metrics = metrics
        self._purge_days = purge_days
        self._every_seconds = every_seconds
        self._measured = float("-inf")

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`."""
        while not stop.requested.is_set():
            pause = await self.heartbeat.while_waiting(self._turn())
            await self.heartbeat.while_waiting(stop.sleep(pause))

    async def _turn(self) -> float:
        """Do one round and return how long to rest: as long again, while there is more to sweep."""
        started = time.monotonic()
        try:
            await self._measure()
            more = await self._sweep()
        except DatabaseUnavailable as outage:
            # The relay polls the same server far more often and is the one to say so.
            log.debug("outbox_upkeep_waits", error=str(outage))
            return self._every_seconds
        return min(self._every_seconds, time.monotonic() - started) if more else self._every_seconds

    async def _sweep(self) -> bool:
        archived = await self._store.archive(ARCHIVE_AFTER_DAYS)
        self._metrics.archived.inc(archived.rows)
        if not self._purge_days:
            return archived.more
        purged = await self._store.purge(self._purge_days)
        self._metrics.purged.inc(purged.rows)
        return archived.more or purged.more

    async def _measure(self) -> None:
        if time.monotonic() - self._measured < self._every_seconds:
            return
        lag = await self._store.lag()
        self._metrics.pending.set(lag.pending)
        self._metrics.oldest_age.set(lag.seconds)
        self._metrics.under_way.set(lag.under_way)
        self._metrics.blocked.set(lag.blocked)
        self._metrics.dead.set(lag.dead)
        self._measured = time.monotonic()
