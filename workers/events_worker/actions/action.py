"""What every action of a rule is, and what it may ask about the event at hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from uuid import uuid5

from pydantic import BaseModel, ConfigDict, PlainValidator, StringConstraints

from events_worker.effects import PlannedJob
from events_worker.event import namespace_of
from events_worker.expressions import Expression, ExpressionError, Text
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.telemetry import inject

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from events_worker.effects import Effect
    from events_worker.endpoints import EndpointDirectory
    from events_worker.event import EventJob

# BullMQ serves what has no priority before any that has one, and 1 before 100.
LOW_PRIORITY = 100


class RuleFailed(Exception):
    """What a rule says cannot be done for an event. Names the rule and the expression, never the event's data."""


def compiled(kind: type[Expression | Text], noun: str) -> PlainValidator:
    """Return what makes a field of a model hold the compiled source that stands in the file."""

    def compile_source(source: object) -> Expression | Text:
        if not isinstance(source, str):
            raise ValueError(f"must be {noun}: put it in quotes")  # noqa: TRY004 - pydantic reports values only
        try:
            return kind(source)
        except ExpressionError as error:
            raise ValueError(str(error)) from error

    return PlainValidator(compile_source)


Name = Annotated[str, StringConstraints(min_length=1)]
Priority = Literal["LOW", "NORMAL", "HIGH", "URGENT"]
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

    def value(self, place: str, expression: Expression | Text) -> Any:
        """Return the value, which is JSON; a field it needs must be there."""
        try:
            return expression.value(self.names)
        except ExpressionError as error:
            raise self.failure(place, str(error)) from error

    def text(self, place: str, expression: Expression) -> str:
        """Return the value, which must be a text that says something."""
        value = self.value(place, expression)
        if isinstance(value, str) and value.strip():
            return value
        raise self.failure(place, f"`{expression.source}`: is empty or not a text")

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
        return PlannedJob(
            queue,
            NewJob(
                name=name,
                data=data,
                job_id=job_id,
                priority=LOW_PRIORITY if priority == "LOW" else 0,
                lifo=priority == "URGENT",
                options={"tm": carrier} if (carrier := inject()) else {},
            ),
        )


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


class Unavailable(ActionFields):
    """An action whose worker comes with a later version: its keys are checked, and the rule is refused at the start."""

    needs: ClassVar[str]
