"""Turns events into jobs for the other workers, by rules that need no Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events_worker.actions.action import RuleFailed
from events_worker.expressions import names_of
from worker_runtime.outcome import DeadLetter, Done

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from events_worker.actions.action import PlannedJob
    from events_worker.context import HandlerContext
    from events_worker.endpoints import EndpointDirectory
    from events_worker.event import EventJob
    from events_worker.rule import Rule
    from worker_runtime.bullmq.producer import JobQueue
    from worker_runtime.outcome import Outcome

# A job's result stays under 4 KB, also when a tenant has a thousand endpoints.
MOST_IDS_TOLD = 50


class Routing:
    """Applies every rule to every event; all jobs of an event are made, or none."""

    name = "routing"
    pattern = "*"
    timeout_seconds = 30.0

    def __init__(self, rules: Sequence[Rule], queue: Callable[[str], JobQueue], endpoints: EndpointDirectory) -> None:
        self._rules = rules
        self._queue = queue
        self._endpoints = endpoints

    async def handle(self, event: EventJob, context: HandlerContext) -> Outcome:  # noqa: ARG002  ids are the rules'
        """See `EventHandler`. The result lists the jobs by their ids, the first of them."""
        try:
            planned = await planned_jobs(self._rules, event, self._endpoints)
        except RuleFailed as failure:
            return DeadLetter("RULE_FAILED", str(failure))
        await self._add(planned)
        return Done([one.job.job_id for one in planned[:MOST_IDS_TOLD]])

    async def _add(self, planned: Sequence[PlannedJob]) -> None:
        """Add them queue by queue. What fails half-way is tried again whole, and adding an id again adds nothing."""
        for queue in dict.fromkeys(job.queue for job in planned):
            await self._queue(queue).add_bulk([job.job for job in planned if job.queue == queue])


async def planned_jobs(rules: Sequence[Rule], event: EventJob, endpoints: EndpointDirectory) -> list[PlannedJob]:
    """Return the jobs that the rules make of an event, without adding them.

    Raises `RuleFailed` when the event does not fit one of them, and `DatabaseUnavailable`.
    """
    names = names_of(event)
    applicable = [rule for rule in rules if rule.applies(event.event_type, names)]
    return [job for rule in applicable for job in await rule.jobs(event, names, endpoints)]
