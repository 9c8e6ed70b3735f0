"""What every action of a rule is, and what it may ask about the event at hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid5

from pydantic import BaseModel, ConfigDict, StringConstraints

from events_worker.effects import PlannedJob
from events_worker.event import namespace_of
from events_worker.expressions import Expression, ExpressionError, Text
from worker_runtime.expression_fields import compiled
from worker_runtime.notification_jobs import Priority, placed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from events_worker.effects import Effect
    from events_worker.endpoints import EndpointDirectory
    from events_worker.event import EventJob
    from worker_runtime import expressions


class RuleFailed(Exception):
    """What a rule says cannot be done for an event. Names the rule and the expression, never the event's data."""


Name = Annotated[str, StringConstraints(min_length=1)]
# As they are in the file: compiled when it is read, so that a mistake is found with its line.
ExpressionField = Annotated[Expression, compiled(Expression, "an expression")]
TextField = Annotated[Text, compiled(Text, "a text")]


@dataclass(frozen=True, slots=True)
class Occasion:
    """One rule applied to one event: everything an action may ask. Its methods raise `RuleFailed`."""

    rule: str
    event: EventJob
    names: Mapping[str, Any]
    endpoints: EndpointDirectory

    def value(self, place: str, expression: expressions.Expression | expressions.Text) -> Any:
        """Return the value, which is JSON; a field it needs must be there."""
        try:
            return expression.value(self.names)
        except ExpressionError as error:
            raise self.failure(place, str(error)) from error

    def text(self, place: str, expression: expressions.Expression) -> str:
        """Return the value, which must be a text that says something."""
        value = self.value(place, expression)
        if isinstance(value, str) and value.strip():
            return value
        raise self.failure(place, f"`{expression.source}`: is empty or not a text")

    def identifying(self, place: str, expression: expressions.Expression) -> str:
        """Return a text, or a whole number as one: ids are either."""
        value = self.value(place, expression)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(place, expression)

    def failure(self, place: str, sentence: str) -> RuleFailed:
        """Return the error that names this rule and the place in it."""
        return RuleFailed(f"rule {self.rule}: {place}: {sentence}")

    def id(self, *parts: str) -> str:
        """Return the UUIDv5 of (event id, rule, parts): the same however often the event is handled."""
        made = uuid5(namespace_of(self.event.effects_id), self.rule)
        for part in parts:
            made = uuid5(made, part)
        return str(made)

    def origin(self) -> dict[str, str]:
        """Return where a job comes from, for its `metadata`."""
        return {
            "eventId": self.event.event_id,
            "eventType": self.event.event_type,
            "rule": self.rule,
            "correlationId": self.event.metadata.correlation_id,
            "causationId": self.event.event_id,
        }

    def planned(
        self, queue: str, name: str, data: Mapping[str, Any], job_id: str, priority: Priority = "NORMAL"
    ) -> PlannedJob:
        """Return a job of this event: part of its trace, placed by its priority."""
        return PlannedJob(queue, placed(name, data, job_id, priority))


class ActionFields(BaseModel):
    """What a person writes under an action's key."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Action(ActionFields, ABC):
    """What a rule does when it applies. A new one is a file here and a line in `ACTIONS`."""

    @classmethod
    @abstractmethod
    def queue_of(cls, written: Mapping[str, Any], /) -> str:
        """Return the key of the queue to which the jobs of what is written go, right or wrong as it may be.

        Empty for what makes no jobs. A rule whose queue is switched off is refused at the start.
        """

    @abstractmethod
    async def effects(self, occasion: Occasion) -> Sequence[Effect]:
        """Return what is to be done, without doing it; raises `RuleFailed` when the event does not fit.

        Called again for the same event, at any time and by several processes at once: ids come from `occasion.id`.
        """
