"""What the events-worker reads beside what every worker does."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it at run time
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from events_worker.actions.job import JOB_QUEUE
from events_worker.contracts import load_contracts
from events_worker.handlers.python import HandlersUnusable, PythonHandler, found_handlers, unheard
from events_worker.rules import SHIPPED, RuleBook, Surroundings, load_rules
from worker_runtime.settings import (
    Allowed,
    DatabaseUrl,
    HealthPort,
    Milliseconds,
    ShownAs,
    WorkerSettings,
)
from worker_runtime.yaml_source import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from events_worker.rule import Rule


def _usable_handlers(text: str) -> str:
    try:
        found_handlers(_listed(text))
    except HandlersUnusable as error:
        raise ValueError(str(error)) from error
    return text


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


class RoutingSettings(WorkerSettings):
    """Routing of events."""

    enable_sms: bool = Field(default=False, description="let rules send SMS")
    enable_webhook: bool = Field(default=False, description="let rules send events to the endpoints of tenants")
    enable_text_extraction: bool = Field(default=True, description="let rules have documents read")
    event_rules_file: Annotated[Path, Allowed("a file with routing rules")] | None = Field(
        None, description="routing rules instead of the shipped ones"
    )

    @field_validator("event_rules_file")
    @classmethod
    def _can_be_used(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        if path is not None:
            try:
                load_rules(path, Surroundings(off=_switched_off(others.data)))
            except SourceError as error:
                raise ValueError(str(error)) from error
        return path

    def rules(self) -> list[Rule]:
        """Return the routing rules; raises `SourceError` for a file that was changed for the worse since the start."""
        return list(self.rule_book().rules)

    def rule_book(self, path: Path | None = None) -> RuleBook:
        """Return the rules of this file, or of the configured one, and what there is to know about them."""
        surroundings = Surroundings(_switched_off(dict(self)), load_contracts().types)
        return load_rules(path or self.event_rules_file or SHIPPED, surroundings)

    def warnings(self) -> list[str]:
        """See `WorkerSettings`."""
        return [*super().warnings(), *self.rule_book().warnings]


class EventsSettings(RoutingSettings):
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

    def handler_packages(self) -> list[str]:
        """Return where to look for handlers in Python."""
        return _listed(self.event_handlers)

    def handlers(self) -> list[PythonHandler]:
        """Return the handlers in Python; raises `HandlersUnusable` as the start would have."""
        return found_handlers(self.handler_packages())

    def warnings(self) -> list[str]:
        """See `WorkerSettings`."""
        spoken_of = [rule.pattern for rule in self.rules()]
        return [*super().warnings(), *unheard(self.handlers(), load_contracts().types, spoken_of)]

    def notes(self) -> list[str]:
        """See `WorkerSettings`."""
        return [
            f"handler {handler.name} ({handler.place}): {handler.pattern}, within {handler.timeout_seconds:g} s"
            for handler in self.handlers()
        ]


def _switched_off(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return each queue that this configuration switches off, and what to do about it."""
    if "job_queue_database_url" in settings and settings["job_queue_database_url"] is None:
        no_jobs = {JOB_QUEUE: "set JOB_QUEUE_DATABASE_URL or"}
    else:
        no_jobs = {}
    switches = {queue: f"enable_{queue.lower()}" for queue in ("SMS", "WEBHOOK", "TEXT_EXTRACTION")}
    return no_jobs | {
        queue: f"set {switch.upper()}=true or" for queue, switch in switches.items() if settings.get(switch) is False
    }
