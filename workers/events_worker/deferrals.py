"""Where events defer jobs: those of many events together, and an outage told from every other one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events_worker.store import JobRefused
from worker_runtime.batching import Batcher
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from events_worker.effects import PlannedDeferral
    from events_worker.store import DeferralStore

__all__ = ["Deferrals", "JobsUnavailable"]

# Together they also wait together: an outage takes one time-out of all events in flight, not one of each.
MOST_TOGETHER = 100


class JobsUnavailable(Exception):
    """The jobs database does not answer, or not as it should; what needs no jobs goes on."""


class Deferrals:
    """May be asked again for the same jobs: they are deferred once. Without a `store` there can be none."""

    def __init__(self, store: DeferralStore | None) -> None:
        self._store = store
        self._together: Batcher[Sequence[PlannedDeferral], JobRefused | None] = Batcher(self._defer, MOST_TOGETHER)

    async def defer(self, jobs: Sequence[PlannedDeferral]) -> None:
        """Defer all jobs of an event or none; raises `JobsUnavailable`, and `JobRefused`."""
        if not jobs:
            return
        try:
            refusal = await self._together(jobs)
        except DatabaseUnavailable as outage:
            raise JobsUnavailable(str(outage)) from outage
        if refusal is not None:
            raise refusal

    async def _defer(self, events: Sequence[Sequence[PlannedDeferral]]) -> Sequence[JobRefused | None]:
        try:
            await self._asked([job for jobs in events for job in jobs])
        except JobRefused:
            # One event's mistake is not the others'.
            return [await self._alone(jobs) for jobs in events]
        return [None] * len(events)

    async def _alone(self, jobs: Sequence[PlannedDeferral]) -> JobRefused | None:
        try:
            await self._asked(jobs)
        except JobRefused as refusal:
            return refusal
        return None

    async def _asked(self, jobs: Sequence[PlannedDeferral]) -> None:
        if self._store is None:
            raise DatabaseUnavailable("JOB_QUEUE_DATABASE_URL is not set")
        await self._store.defer(jobs)
