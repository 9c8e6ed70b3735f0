"""A job of the queue `intelliflow:events`: one domain event in its envelope."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads it at run time
from typing import Annotated, Any
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

Id = Annotated[str, StringConstraints(min_length=1)]


def _as_text(version: object) -> object:
    """Accept `1` and `1.0` beside "1.0": producers disagree on what a version is."""
    return str(version) if isinstance(version, (int, float)) and not isinstance(version, bool) else version


class EventMetadata(BaseModel):
    """Where an event comes from. Fields beyond these are kept."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow", frozen=True)

    correlation_id: Id
    causation_id: Id | None = None
    user_id: Id | None = None
    timestamp: datetime
    version: Annotated[str, BeforeValidator(_as_text)]


class Replay(BaseModel):
    """A repetition of events for some handlers, by their names, and for nobody else. `id` tells it from others."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    handlers: Annotated[tuple[Id, ...], Field(min_length=1)]


class EventJob(BaseModel):
    """The payload of a job on the `events` queue; the job's name is `event_type`.

    `sequence` grows with the commits to one aggregate; only a job that a producer added past the outbox lacks it.
    `replay` is set on the jobs of a replay, which take no turns and of which no receipts are kept.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    event_id: Id
    event_type: Id
    aggregate_type: Id
    aggregate_id: Id
    tenant_id: Id
    payload: dict[str, Any]
    metadata: EventMetadata
    occurred_at: datetime
    sequence: int | None = Field(default=None, ge=0)
    replay: Replay | None = None

    @property
    def effects_id(self) -> str:
        """What the ids of effects derive from: the event's id, or one of the replay's own."""
        return self.event_id if self.replay is None else replayed_id(self.replay.id, self.event_id)

    def read_as(self, version: str, payload: dict[str, Any]) -> EventJob:
        """Return the event with its payload as a contract has lifted it, or itself when there was nothing to lift."""
        if payload is self.payload:
            return self
        metadata = self.metadata.model_copy(update={"version": version})
        return self.model_copy(update={"metadata": metadata, "payload": payload})


def replayed_id(replay_id: UUID, event_id: str) -> str:
    """Return the id of an event within a replay, which is also its job's: the same however often it is added."""
    return str(uuid5(replay_id, event_id))


def namespace_of(event_id: str) -> UUID:
    """Return what ids of an event's effects are derived within: itself, if it is a UUID as it should be."""
    try:
        return UUID(event_id)
    except ValueError:
        return uuid5(NAMESPACE_URL, event_id)
