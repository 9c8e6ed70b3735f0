"""What the workflow-worker reads beside what every worker does."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from worker_runtime.settings import Allowed, DatabaseUrl, HealthPort, Milliseconds, ShownAs, WorkerSettings
from workflow_worker.registry import Registry, WorkflowsUnusable, found_workflows

__all__ = ["WorkflowSettings"]


def _usable(text: str) -> str:
    try:
        found_workflows(_listed(text))
    except WorkflowsUnusable as error:
        raise ValueError(str(error)) from error
    return text


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


class WorkflowSettings(WorkerSettings):
    """Durable workflows."""

    health_port: HealthPort = 3103
    database_url: DatabaseUrl = Field(description="PostgreSQL database with the workflows")
    queue_concurrency: Annotated[int, Field(ge=1, le=1000), ShownAs("concurrency")] = Field(
        50, description="executions at work at the same time in this process"
    )
    workflow_poll_interval_ms: Annotated[Milliseconds, Field(ge=50, le=60_000), ShownAs("pollIntervalMs")] = Field(
        250, description="pause between two looks for executions that are ready, when nothing announces one"
    )
    workflow_packages: Annotated[str, AfterValidator(_usable), Allowed("packages with workflows")] = Field(
        "", description="Python packages with workflows and functions, comma-separated"
    )
    workflow_history_days: int = Field(
        30, ge=1, le=3650, description="days for which executions that are completed or cancelled are kept"
    )
    workflow_failed_history_days: int = Field(
        90, ge=1, le=3650, description="days for which executions that have failed are kept"
    )
    enable_sms: bool = Field(default=False, description="let steps send SMS")
    enable_webhook: bool = Field(default=False, description="let steps send webhooks")

    def registry(self) -> Registry:
        """Return what the packages hold; raises `WorkflowsUnusable` as the start would have."""
        return found_workflows(_listed(self.workflow_packages))

    def channels_off(self) -> dict[str, str]:
        """Return each channel that is switched off, by its queue's key, and what to do about it."""
        switches = {"SMS": self.enable_sms, "WEBHOOK": self.enable_webhook}
        return {queue: f"set ENABLE_{queue}=true" for queue, is_on in switches.items() if not is_on}

    def notes(self) -> list[str]:
        """See `WorkerSettings`."""
        registry = self.registry()
        return [
            *(f"workflow {name}, version {version}" for name, version in sorted(registry.workflows)),
            *(f"function {name}" for name in sorted(registry.functions)),
        ]
