"""`wait_for_event`: until somebody sends a signal of that name and correlation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from workflow_worker.steps.step import LONGEST_NAME, ExpressionField, Name, NumberField, StepKind
from workflow_worker.steps.wait import refuse_seconds, seconds_of

if TYPE_CHECKING:
    from workflow_worker.steps.step import Occasion


class WaitForEvent(StepKind):
    """A signal that came since the execution began counts, once."""

    event: Name
    correlation: ExpressionField
    timeoutSeconds: NumberField | None = None  # noqa: N815 - as it is written
    onTimeout: Literal["fail", "continue"] = "fail"  # noqa: N815

    @model_validator(mode="after")
    def _times_out(self) -> WaitForEvent:
        refuse_seconds(self.timeoutSeconds)
        if self.timeoutSeconds is None and "onTimeout" in self.model_fields_set:
            raise ValueError("onTimeout needs timeoutSeconds")
        return self

    async def run(self, occasion: Occasion) -> Any:
        """See `StepKind`. The output is `{payload}`, or null after a time-out that does not fail."""
        seconds, limit = None, self.timeoutSeconds
        if limit is not None:
            seconds = seconds_of(occasion, "timeoutSeconds", limit)
        correlation = self._correlation(occasion)
        return await occasion.context.wait_event(
            occasion.step.id, self.event, correlation, timeout_seconds=seconds, fails=self.onTimeout == "fail"
        )

    def _correlation(self, occasion: Occasion) -> str:
        value = occasion.value("correlation", self.correlation)
        text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
        if not 0 < len(text) <= LONGEST_NAME:
            raise occasion.failure("correlation", f"`{self.correlation.source}`: is empty, too long or not a text")
        return text
