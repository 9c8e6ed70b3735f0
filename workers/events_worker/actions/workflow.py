"""`workflow`: a durable workflow of the event's organisation is started, or one that waits goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from events_worker.actions.action import Action, ExpressionField, Name
from events_worker.effects import PlannedSignal, PlannedStart
from worker_runtime.telemetry import inject

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from events_worker.actions.action import Occasion
    from events_worker.effects import Effect
    from events_worker.expressions import Expression

STARTING = ("input", "key")
SIGNALLING = ("correlation", "data")


class Workflow(Action):
    """Either `start` with `input` and `key`, or `signal` with `correlation` and `data`; its id is of (event, rule).

    Without `input` an execution is given `event`, `payload` and `metadata`; without `data` a signal has the payload.
    """

    start: Name | None = None
    input: dict[str, ExpressionField] | None = None
    key: ExpressionField | None = None
    signal: Name | None = None
    correlation: ExpressionField | None = None
    data: dict[str, ExpressionField] | None = None

    @model_validator(mode="after")
    def _starts_or_signals(self) -> Workflow:
        if (self.start is None) == (self.signal is None):
            raise ValueError("needs either start (with input and key) or signal (with correlation and data)")
        wrong = [field for field in (SIGNALLING if self.start else STARTING) if getattr(self, field) is not None]
        if wrong:
            raise ValueError(f"has {', '.join(wrong)}, which {'start' if self.start else 'signal'} does not take")
        if self.signal and self.correlation is None:
            raise ValueError("correlation is missing: it tells which executions are meant")
        return self

    @classmethod
    def queue_of(cls, _written: Mapping[str, Any], /) -> str:
        """See `Action`."""
        return ""

    async def effects(self, occasion: Occasion) -> Sequence[Effect]:
        """See `Action`."""
        if self.signal is None or self.correlation is None:
            return [self._start(occasion, str(self.start))]
        return [self._signal(occasion, self.signal, self.correlation)]

    def _start(self, occasion: Occasion, workflow: str) -> PlannedStart:
        return PlannedStart(
            id=occasion.id("workflow"),
            organization_id=occasion.event.tenant_id,
            workflow=workflow,
            given=occasion.names if self.input is None else _values(occasion, "input", self.input),
            rule=occasion.rule,
            key=None if self.key is None else occasion.identifying("key", self.key),
            trace=inject(),
        )

    def _signal(self, occasion: Occasion, event: str, correlation: Expression) -> PlannedSignal:
        return PlannedSignal(
            id=occasion.id("workflow"),
            organization_id=occasion.event.tenant_id,
            event=event,
            correlation=occasion.identifying("correlation", correlation),
            data=occasion.names["payload"] if self.data is None else _values(occasion, "data", self.data),
            rule=occasion.rule,
        )


def _values(occasion: Occasion, place: str, sources: Mapping[str, Expression]) -> dict[str, Any]:
    return {key: occasion.value(f"{place}.{key}", source) for key, source in sources.items()}
