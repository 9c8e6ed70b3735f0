"""Takes jobs from workers that have vanished, beside the jobs and never in their way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from worker_runtime.loops import Heartbeat
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobs_worker.store import JobStore
    from worker_runtime.loops import StopSignal
    from worker_runtime.metrics import QueueMetrics

__all__ = ["Upkeep"]

log = structlog.get_logger()

EVERY_SECONDS = 5.0
MOST_STALLS = 3
CHUNK = 100
# A worker that is late for its beat keeps its row for longer than its jobs: it is told so when it wakes up.
PRUNED_AFTER = 10


class Upkeep:
    """Rescues what is stalled, a chunk at a time. `limits` are the retries that each task is granted."""

    name = "job-upkeep"

    def __init__(
        self,
        store: JobStore,
        limits: Mapping[str, int],
        metrics_of: Callable[[str], QueueMetrics],
        *,
        silence_seconds: float,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self.heartbeat = Heartbeat()
        self._store = store
        self._limits = limits
        self._metrics_of = metrics_of
        self._silence_seconds = silence_seconds
        self._every_seconds = every_seconds

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`."""
        while not stop.requested.is_set():
            more = await self.heartbeat.while_waiting(self.turn())
            await self.heartbeat.while_waiting(stop.sleep(0.0 if more else self._every_seconds))

    async def turn(self) -> bool:
        """Do one round; tell whether there is more."""
        try:
            rescued = await self._store.rescue(self._silence_seconds, MOST_STALLS, self._limits, CHUNK)
            await self._store.prune(self._silence_seconds * PRUNED_AFTER)
        except DatabaseUnavailable as outage:
            log.debug("job_upkeep_waits", error=str(outage))
            return False
        for job in rescued:
            metrics = self._metrics_of(job.queue)
            metrics.recovered(1)
            if job.status == "failed":
                metrics.dead_lettered.inc()
            log.warning("job_rescued", jobId=job.id, task=job.task, status=job.status)
        return len(rescued) == CHUNK
