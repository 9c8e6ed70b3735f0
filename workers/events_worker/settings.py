"""What the events-worker reads beside what every worker does."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it at run time
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from events_worker.handlers.python import HandlersUnusable, found_handlers
from events_worker.rules import SHIPPED, CompiledRule, load_rules
from events_worker.yaml_source import SourceError
from worker_runtime.settings import Allowed, DatabaseUrl, HealthPort, Milliseconds, ShownAs, WorkerSettings

ALL_CHANNELS = frozenset({"EMAIL", "SMS", "WEBHOOK"})


def _usable_rules(path: Path) -> Path:
    try:
        load_rules(path, ALL_CHANNELS)
    except SourceError as error:
        raise ValueError(str(error)) from error
    return path


def _usable_handlers(text: str) -> str:
    try:
        found_handlers(_listed(text), taken=set())
    except HandlersUnusable as error:
        raise ValueError(str(error)) from error
    return text


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


class EventsSettings(WorkerSettings):
    """The outbox and the routing of events."""

    health_port: HealthPort = 3100
    database_url: DatabaseUrl = Field(description="PostgreSQL database with the outbox")
    outbox_poll_interval_ms: Annotated[Milliseconds, Field(le=60_000), ShownAs("pollIntervalMs")] = Field(
        100, description="pause between two polls of the outbox; a full batch is followed at once"
    )
    outbox_batch_size: Annotated[int, Field(ge=1, le=100), ShownAs("batchSize")] = Field(
        100, description="most events per poll"
    )
    outbox_partitions: Annotated[int, Field(ge=1, le=1024)] = Field(
        16, description="parts of the aggregates that are shared out among events-workers; fixed by the first start"
    )
    outbox_max_waiting_jobs: Annotated[int, Field(ge=0)] = Field(
        100_000, description="the relay waits while so many events wait in Redis for a handler; 0 = it never does"
    )
    outbox_archive_purge_days: Annotated[int, Field(ge=0)] = Field(
        0, description="days after its commit when an archived event is deleted for good; 0 = never"
    )
    event_handlers: Annotated[str, AfterValidator(_usable_handlers), Allowed("packages with handlers")] = Field(
        "", description="Python packages, or entry points of `intelliflow.event_handlers`, comma-separated"
    )
    event_rules_file: Annotated[Path, AfterValidator(_usable_rules), Allowed("a file with routing rules")] | None = (
        Field(None, description="routing rules instead of the shipped ones")
    )

    @model_validator(mode="after")
    def _rules_use_channels_that_are_on(self) -> Self:
        try:
            self.rules()
        except SourceError as error:
            raise ValueError(f"EVENT_RULES_FILE: {error}") from error
        return self

    def rules(self) -> list[CompiledRule]:
        """Return the routing rules; raises `SourceError` for a file that was changed for the worse since the start."""
        return load_rules(self.event_rules_file or SHIPPED, self._channels())

    def handler_packages(self) -> list[str]:
        """Return where to look for handlers in Python."""
        return _listed(self.event_handlers)

    def _channels(self) -> frozenset[str]:
        switched_on = {"SMS": self.enable_sms, "WEBHOOK": self.enable_webhook}
        return frozenset({"EMAIL"} | {channel for channel, on in switched_on.items() if on})
