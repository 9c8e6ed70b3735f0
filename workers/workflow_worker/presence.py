"""What the rows of organisations say of us: `worker_running`, `worker_last_run_at`, `worker_last_batch_size`."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import structlog

from worker_runtime.health_board import timestamp
from worker_runtime.loops import Heartbeat
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker_runtime.loops import StopSignal
    from workflow_worker.execution import Execution
    from workflow_worker.store.presence import PresenceStore

__all__ = ["Presence"]

log = structlog.get_logger()

EVERY_SECONDS = 1.0


class Presence:
    """The loop that writes them, once a second for all together: a write with every claim would be in its way."""

    name = "workflow-presence"

    def __init__(self, store: PresenceStore, *, every_seconds: float = EVERY_SECONDS) -> None:
        self.heartbeat = Heartbeat()
        self._store = store
        self._every_seconds = every_seconds
        self._batches: dict[str, int] = {}
        self._last: tuple[float, int] | None = None

    def claimed(self, executions: Iterable[Execution]) -> None:
        """Note a batch of each organisation."""
        counts = Counter(execution.organization_id for execution in executions)
        self._batches.update(counts)
        if counts:
            self._last = time.time(), counts.total()

    def last_run(self) -> dict[str, Any]:
        """Return what `/health/detailed` says of this process; of organisations, their rows of settings do."""
        moment, size = self._last or (None, None)
        return {"lastRunAt": None if moment is None else timestamp(moment), "lastBatchSize": size}

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`."""
        while not stop.requested.is_set():
            await self.heartbeat.while_waiting(self.write())
            await self.heartbeat.while_waiting(stop.sleep(self._every_seconds))
        await self.heartbeat.while_waiting(self.write())

    async def write(self) -> None:
        """Write what is new."""
        batches, self._batches = self._batches, {}
        try:
            await self._store.write(batches)
        except DatabaseUnavailable as outage:
            log.debug("workflow_presence_waits", error=str(outage))
            self._batches = batches | self._batches
