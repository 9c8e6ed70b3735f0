"""The handlers of domain events. A new one is a file here and a line in `handlers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from events_worker.handlers.routing import Routing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from events_worker.event import EventJob
    from events_worker.rules import CompiledRule
    from worker_runtime.bullmq.producer import JobQueue
    from worker_runtime.outcome import Outcome

__all__ = ["EventHandler", "handlers"]


class EventHandler(Protocol):
    """Does one thing because of an event."""

    name: str
    pattern: str  # `lead.created`, `lead.*` or `*`

    async def handle(self, event: EventJob) -> Outcome:
        """Act, and say how it ended; an exception counts as a failure worth another attempt.

        Called again for the same event after a retry, also when only another handler failed, and possibly by two
        processes at once: effects carry ids derived from the event's.
        """
        ...


def handlers(rules: Sequence[CompiledRule], queue: Callable[[str], JobQueue]) -> tuple[EventHandler, ...]:
    """Build every handler; `queue` returns a queue by its key (`EMAIL`)."""
    return (Routing(rules, queue),)
