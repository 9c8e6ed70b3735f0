"""Defers the tasks that are due by the clock: once for all workers, which Procrastinate's own table sees to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
from procrastinate.exceptions import ConnectorException
from procrastinate.periodic import MARGIN, PeriodicDeferrer

from worker_runtime.loops import Heartbeat

if TYPE_CHECKING:
    from procrastinate import App

    from worker_runtime.loops import StopSignal

__all__ = ["Periodic"]

log = structlog.get_logger()

AGAIN_SECONDS = 5.0
IDLE_SECONDS = 60.0


class Periodic:
    """The loop; with no periodic task it rests."""

    name = "job-periodic"

    def __init__(self, app: App) -> None:
        self.heartbeat = Heartbeat()
        self._app = app
        self._deferrer = self._new()

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`."""
        while not stop.requested.is_set():
            pause = await self.heartbeat.while_waiting(self.turn())
            await self.heartbeat.while_waiting(stop.sleep(pause))

    async def turn(self) -> float:
        """Defer what is due; return the seconds until something is."""
        now = time.time()
        if not self._app.periodic_registry.periodic_tasks:
            return IDLE_SECONDS
        try:
            await self._deferrer.defer_jobs(self._deferrer.get_previous_tasks(at=now))
        except ConnectorException as outage:
            log.warning("job_periodic_waits", error=str(outage))
            # What this one believes to have deferred it may not have: a new one looks again.
            self._deferrer = self._new()
            return AGAIN_SECONDS
        return max(0.0, float(self._deferrer.get_next_tick(at=now))) + MARGIN

    def _new(self) -> PeriodicDeferrer:
        return PeriodicDeferrer(registry=self._app.periodic_registry, **self._app.periodic_defaults)
