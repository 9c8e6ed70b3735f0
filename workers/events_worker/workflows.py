"""Where events start and signal workflows: many events together where that can be, counted, and then hinted at."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeGuard

from events_worker.effects import PlannedStart
from events_worker.store import WorkflowRefused
from worker_runtime.batching import Batcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from events_worker.effects import WorkflowEffect
    from events_worker.store import Concern, WorkflowStore
    from worker_runtime.metrics import WorkflowStartMetrics

# Enough for one commit to serve all events in flight, few enough for a statement of milliseconds.
MOST_TOGETHER = 100


class Workflows:
    """Every method raises `DatabaseUnavailable`, and may be called again for the same effects: they are done once."""

    def __init__(self, store: WorkflowStore, metrics: WorkflowStartMetrics, hint: Callable[[], None]) -> None:
        """`hint` is called after a commit, and does not block."""
        self._store = store
        self._metrics = metrics
        self._hint = hint
        self._concern: Batcher[tuple[str, str], Concern] = Batcher(store.concerns, MOST_TOGETHER)
        self._start: Batcher[Sequence[PlannedStart], Counter[str] | WorkflowRefused] = Batcher(
            self._start_together, MOST_TOGETHER
        )

    async def concern(self, organization_id: str, event_type: str) -> Concern:
        """Return what such an event means to the organisation's workflows."""
        return await self._concern((organization_id, event_type))

    async def carry_out(self, effects: Sequence[WorkflowEffect]) -> None:
        """Do all of it or nothing; raises `WorkflowRefused`."""
        if not effects:
            return
        done = await (self._start(effects) if _only_starts(effects) else self._alone(effects))
        if isinstance(done, WorkflowRefused):
            self._metrics.counted("refused", 1)
            raise done
        for outcome, count in done.items():
            self._metrics.counted(outcome, count)
        self._hint()

    async def _start_together(
        self, events: Sequence[Sequence[PlannedStart]]
    ) -> Sequence[Counter[str] | WorkflowRefused]:
        try:
            together = await self._store.start_together([start for starts in events for start in starts])
        except WorkflowRefused:
            # One event's mistake is not the others'.
            return [await self._alone(starts) for starts in events]
        # Who counts it does not matter.
        return [together, *(Counter[str]() for _ in events[1:])]

    async def _alone(self, effects: Sequence[WorkflowEffect]) -> Counter[str] | WorkflowRefused:
        try:
            return await self._store.carry_out(effects)
        except WorkflowRefused as refusal:
            return refusal


def _only_starts(effects: Sequence[WorkflowEffect]) -> TypeGuard[Sequence[PlannedStart]]:
    return all(isinstance(effect, PlannedStart) for effect in effects)
