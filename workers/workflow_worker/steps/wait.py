"""`wait`: nothing, for some time or until a time. It survives restarts, and days cost nothing."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import model_validator

from workflow_worker.steps.step import Expression, ExpressionField, NumberField, StepKind

if TYPE_CHECKING:
    from workflow_worker.steps.step import Occasion

__all__ = ["MOST_SECONDS", "Wait", "seconds_of"]

MOST_SECONDS = 315_360_000


class Wait(StepKind):
    """Seconds from when it is first reached, or a time in ISO 8601 with its zone; what is past is not waited for."""

    seconds: NumberField | None = None
    until: ExpressionField | None = None

    @model_validator(mode="after")
    def _for_something(self) -> Wait:
        if (self.seconds is None) == (self.until is None):
            raise ValueError("needs either seconds or until")
        refuse_seconds(self.seconds)
        return self

    async def run(self, occasion: Occasion) -> None:
        """See `StepKind`. There is no output."""
        if self.until is not None:
            await occasion.context.sleep(occasion.step.id, until=_time(occasion, self.until))
        elif self.seconds is not None:
            seconds = seconds_of(occasion, "seconds", self.seconds)
            await occasion.context.sleep(occasion.step.id, seconds=seconds)


def refuse_seconds(seconds: float | Expression | None) -> None:
    """Raise `ValueError` for a number of seconds that nobody can wait."""
    if isinstance(seconds, (int, float)) and not 0 <= seconds <= MOST_SECONDS:
        raise ValueError(f"must be between 0 and {MOST_SECONDS} seconds")


def seconds_of(occasion: Occasion, place: str, seconds: float | Expression) -> float:
    """Return a number of seconds, which may be an expression's value."""
    if not isinstance(seconds, Expression):
        return seconds
    value = occasion.value(place, seconds)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST_SECONDS:
        raise occasion.failure(place, f"`{seconds.source}`: is no number between 0 and {MOST_SECONDS}")
    return value


def _time(occasion: Occasion, until: Expression) -> datetime:
    text = occasion.text("until", until)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise _no_time(occasion, until) from error
    if moment.tzinfo is None:
        raise _no_time(occasion, until)
    return moment


def _no_time(occasion: Occasion, until: Expression) -> Exception:
    return occasion.failure("until", f"`{until.source}`: is no time with a zone, like 2026-01-31T10:00:00Z")
