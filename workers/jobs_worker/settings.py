"""What the jobs-worker reads beside what every worker does."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from jobs_worker.app import job_queue
from jobs_worker.registry import BUILTIN, TasksUnusable, load_tasks
from worker_runtime.settings import Allowed, DatabaseUrl, HealthPort, Milliseconds, ShownAs, WorkerSettings

__all__ = ["JobsSettings"]


def _usable(text: str) -> str:
    try:
        load_tasks(listed(text))
    except TasksUnusable as error:
        raise ValueError(str(error)) from error
    return text


def listed(text: str) -> list[str]:
    """Return the names in a comma-separated text."""
    return [name.strip() for name in text.split(",") if name.strip()]


class JobsSettings(WorkerSettings):
    """Side effects."""

    health_port: HealthPort = 3104
    job_queue_database_url: DatabaseUrl = Field(description="PostgreSQL database with the jobs")
    queue_concurrency: Annotated[int, Field(ge=1, le=1000), ShownAs("concurrency")] = Field(
        10, description="jobs at work at the same time in this process"
    )
    job_queue_names: Annotated[str, Allowed("queues, comma-separated")] = Field(
        "", description="queues that this process works; none named: all"
    )
    job_queue_packages: Annotated[str, AfterValidator(_usable), Allowed("packages with tasks")] = Field(
        "", description="Python packages with tasks, comma-separated", validate_default=True
    )
    job_queue_poll_interval_ms: Annotated[Milliseconds, Field(ge=50, le=60_000), ShownAs("pollIntervalMs")] = Field(
        1000, description="pause between two looks for jobs that may run, when nothing announces one"
    )
    job_queue_task_timeout_ms: Annotated[Milliseconds, Field(ge=1000)] = Field(
        300_000, description="what one attempt may take, of a task without a deadline of its own"
    )
    job_queue_stalled_after_ms: Annotated[Milliseconds, Field(ge=5_000)] = Field(
        60_000, description="silence of a worker after which its jobs are given to others"
    )
    job_queue_history_days: int = Field(
        30, ge=1, le=3650, description="days for which jobs that have succeeded, were cancelled or aborted are kept"
    )
    job_queue_failed_history_days: int = Field(
        90, ge=1, le=3650, description="days for which jobs that have failed are kept"
    )

    def worked_queues(self) -> list[str] | None:
        """Return the queues to work, `None` for all."""
        return listed(self.job_queue_names) or None

    def notes(self) -> list[str]:
        """See `WorkerSettings`."""
        return [f"task {name}" for name, task in sorted(job_queue.tasks.items()) if task.queue != BUILTIN]
