"""The handlers of domain events: routing rules, workflows of organisations, and what a team writes in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from events_worker.context import HandlerContext
from events_worker.event import EventJob
from events_worker.handlers.python import HandlersUnusable, found_handlers, on
from events_worker.handlers.routing import Routing
from events_worker.handlers.workflows import OrganizationWorkflows
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import NewJob

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from events_worker.deferrals import Deferrals
    from events_worker.endpoints import EndpointDirectory
    from events_worker.rule import Rule
    from events_worker.workflows import Workflows
    from worker_runtime.bullmq.producer import JobQueue
    from worker_runtime.outcome import Outcome

__all__ = ["EventHandler", "EventJob", "HandlerContext", "HandlersUnusable", "NewJob", "QueueName", "handlers", "on"]


class EventHandler(Protocol):
    """Does one thing because of an event. `name` is its receipt's: whoever is renamed runs again."""

    @property
    def name(self) -> str:
        """Say whose receipt it is; unique, and stable over releases."""
        ...

    @property
    def pattern(self) -> str:
        """Say for which events: `lead.created`, `lead.*` or `*`."""
        ...

    @property
    def timeout_seconds(self) -> float:
        """Say how long it may take; after that it is cancelled and counts as failed."""
        ...

    async def handle(self, event: EventJob, context: HandlerContext) -> Outcome:
        """Act, and say how it ended; an exception counts as a failure worth another attempt.

        Runs beside the event's other handlers. Called again for the same event after a failure, not after success,
        unless the process died before that was noted: effects carry ids derived from the event's.
        """
        ...


def handlers(
    rules: Sequence[Rule],
    queue: Callable[[str], JobQueue],
    endpoints: EndpointDirectory,
    workflows: Workflows,
    deferrals: Deferrals,
    packages: Sequence[str] = (),
) -> tuple[EventHandler, ...]:
    """Build every handler; `queue` returns a queue by its key (`EMAIL`). Raises `HandlersUnusable`."""
    routing = Routing(rules, queue, endpoints, workflows, deferrals)
    return (routing, OrganizationWorkflows(workflows), *found_handlers(packages))
