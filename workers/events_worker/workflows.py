"""Where events start and signal workflows: in one commit for each handler and event, counted, and then hinted at."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from events_worker.actions.action import RuleFailed
from events_worker.effects import PlannedStart
from events_worker.store import WorkflowRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from events_worker.effects import PlannedSignal
    from events_worker.store import WorkflowStore, WorkflowTransaction
    from worker_runtime.metrics import WorkflowStartMetrics


class Workflows:
    """Every method raises `DatabaseUnavailable`, and may be called again for the same effects: they are done once."""

    def __init__(self, store: WorkflowStore, metrics: WorkflowStartMetrics, hint: Callable[[], None]) -> None:
        """`hint` is called after a commit, and does not block."""
        self._store = store
        self._metrics = metrics
        self._hint = hint

    async def carry_out(self, effects: Sequence[PlannedStart | PlannedSignal]) -> None:
        """Do all of it or nothing; raises `RuleFailed` for a workflow that the organisation does not have."""
        if effects:
            async with self.transaction() as transaction:
                for effect in effects:
                    await _carry_out(transaction, effect)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[WorkflowTransaction]:
        """Lend a transaction, and count what it has done; raises `WorkflowRefused` as that does."""
        try:
            async with self._store.transaction() as transaction:
                yield transaction
        except (RuleFailed, WorkflowRefused):
            self._metrics.counted("refused", 1)
            raise
        for outcome, count in transaction.done.items():
            self._metrics.counted(outcome, count)
        if transaction.done:
            self._hint()


async def _carry_out(transaction: WorkflowTransaction, effect: PlannedStart | PlannedSignal) -> None:
    try:
        if isinstance(effect, PlannedStart):
            await transaction.start(effect)
        else:
            await transaction.signal(effect)
    except WorkflowRefused as refusal:
        raise RuleFailed(f"rule {effect.rule}: workflow: {refusal}") from refusal
