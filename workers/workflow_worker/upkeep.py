"""Keeps messages and executions together, and the tables small, beside the executions and never in their way."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import structlog

from worker_runtime.loops import Heartbeat
from worker_runtime.postgres import DatabaseUnavailable
from workflow_worker.store.upkeep import CHUNK, Swept

if TYPE_CHECKING:
    from worker_runtime.loops import StopSignal
    from worker_runtime.workflow_metrics import WorkflowMetrics
    from workflow_worker.store.upkeep import UpkeepStore

__all__ = ["Upkeep"]

log = structlog.get_logger()

EVERY_SECONDS = 30.0
# Sweeping a large backlog takes seconds: it shall take a twentieth of the server's time.
REST_PART = 20
SOON_SECONDS = 1.0


class Upkeep:
    """Sweeps both ways, and deletes what is older than so many days."""

    name = "workflow-upkeep"

    def __init__(
        self,
        store: UpkeepStore,
        metrics: WorkflowMetrics,
        *,
        days: int,
        failed_days: int,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self.heartbeat = Heartbeat()
        self._store = store
        self._metrics = metrics
        self._days = days
        self._failed_days = failed_days
        self._every_seconds = every_seconds

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`."""
        while not stop.requested.is_set():
            pause = await self.heartbeat.while_waiting(self.turn())
            await self.heartbeat.while_waiting(stop.sleep(pause))

    async def turn(self) -> float:
        """Do one round and return how long to rest: not for long while there is more."""
        began = time.monotonic()
        try:
            swept = await self._store.sweep()
            purged = await self._store.purge(self._days, self._failed_days)
        except DatabaseUnavailable as outage:
            log.debug("workflow_upkeep_waits", error=str(outage))
            return self._every_seconds
        if swept != Swept():
            log.info("workflow_swept", **dataclasses.asdict(swept))
        self._metrics.swept(swept.resent, swept.strays, swept.unknown, swept.woken)
        self._metrics.purged.inc(purged)
        most = max(swept.resent, swept.strays + swept.unknown, swept.woken, purged)
        pause = min(SOON_SECONDS, self._every_seconds) if most >= CHUNK else self._every_seconds
        return max(pause, (time.monotonic() - began) * REST_PART)
