"""Forgets deliveries whose time is over, beside the channels and never in their way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from worker_runtime.loops import Heartbeat
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from notifications_worker.store import HistoryStore
    from worker_runtime.loops import StopSignal

log = structlog.get_logger()

EVERY_SECONDS = 60.0
MOST_AT_ONCE = 1_000


class Upkeep:
    """Deletes what is older than `days`, a short sweep at a time."""

    name = "delivery-upkeep"

    def __init__(self, history: HistoryStore, days: int, *, every_seconds: float = EVERY_SECONDS) -> None:
        self.heartbeat = Heartbeat()
        self._history = history
        self._days = days
        self._every_seconds = every_seconds

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`."""
        while not stop.requested.is_set():
            pause = await self.heartbeat.while_waiting(self._turn())
            await self.heartbeat.while_waiting(stop.sleep(pause))

    async def _turn(self) -> float:
        """Sweep once and return how long to rest: a moment, while there is more."""
        try:
            forgotten = await self._history.forget(self._days, MOST_AT_ONCE)
        except DatabaseUnavailable as outage:
            log.info("delivery_upkeep_waits", error=str(outage))
            return self._every_seconds
        return 1.0 if forgotten == MOST_AT_ONCE else self._every_seconds
