"""What rules make of events, planned and not yet done: jobs for queues, side effects, workflows to start or signal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker_runtime.bullmq.producer import NewJob

__all__ = ["Effect", "FailedStart", "PlannedDeferral", "PlannedJob", "PlannedSignal", "PlannedStart", "WorkflowEffect"]


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job to be added to the queue with that key (`EMAIL`); adding it twice makes one, for its id is derived."""

    queue: str
    job: NewJob

    @property
    def id(self) -> str:
        """The job's."""
        return str(self.job.job_id)


@dataclass(frozen=True, slots=True)
class PlannedDeferral:
    """A job for the jobs-worker. Its id is derived, so that deferring it twice makes one.

    `arguments` are JSON; a higher `priority` goes first; see `Job` for the others.
    """

    id: str
    task: str
    arguments: dict[str, Any]
    queue: str
    priority: int
    lock: str | None
    delay_seconds: int
    rule: str


@dataclass(frozen=True, slots=True)
class PlannedStart:
    """An execution of an organisation's workflow. Its id is derived, so that starting twice makes one.

    `given` is its input, JSON. Of executions with the same `key` there is one, too, whatever event it came of. `rule`
    is the routing rule that says so.
    """

    id: str
    organization_id: str
    workflow: str
    given: Any
    rule: str = ""
    key: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class PlannedSignal:
    """An event for the executions of an organisation that wait for it, now or later; the same id is the same signal."""

    id: str
    organization_id: str
    event: str
    correlation: str
    data: Any
    rule: str = ""


@dataclass(frozen=True, slots=True)
class FailedStart:
    """An execution that has failed before it began, left where a person looks for what became of an event."""

    start: PlannedStart
    error: str

    @property
    def rule(self) -> str:
        """The start's."""
        return self.start.rule


Effect = PlannedJob | PlannedDeferral | PlannedStart | PlannedSignal
WorkflowEffect = PlannedStart | FailedStart | PlannedSignal
