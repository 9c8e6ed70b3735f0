"""Turns events into jobs for the other workers and into workflows, by rules that need no Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from events_worker.actions.action import RuleFailed
from events_worker.deferrals import JobsUnavailable
from events_worker.effects import PlannedDeferral, PlannedJob, PlannedSignal, PlannedStart
from events_worker.expressions import names_of
from events_worker.store import JobRefused, WorkflowRefused
from worker_runtime.outcome import DeadLetter, Defer, Done

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from events_worker.context import HandlerContext
    from events_worker.deferrals import Deferrals
    from events_worker.effects import Effect
    from events_worker.endpoints import EndpointDirectory
    from events_worker.event import EventJob
    from events_worker.rule import Rule
    from events_worker.workflows import Workflows
    from worker_runtime.bullmq.producer import JobQueue
    from worker_runtime.outcome import Outcome

log = structlog.get_logger()

# A job's result stays under 4 KB, also when a tenant has a thousand endpoints.
MOST_IDS_TOLD = 50
# Its outage holds up the events that need it, each for so long at a time, and no others.
OUTAGE_SECONDS = 5.0


class Routing:
    """Applies every rule to every event; all that they make of an event is made, or nothing."""

    name = "routing"
    pattern = "*"
    timeout_seconds = 30.0

    def __init__(
        self,
        rules: Sequence[Rule],
        queue: Callable[[str], JobQueue],
        endpoints: EndpointDirectory,
        workflows: Workflows,
        deferrals: Deferrals,
    ) -> None:
        self._rules = rules
        self._queue = queue
        self._endpoints = endpoints
        self._workflows = workflows
        self._deferrals = deferrals

    async def handle(self, event: EventJob, context: HandlerContext) -> Outcome:  # noqa: ARG002  ids are the rules'
        """See `EventHandler`. The result lists jobs and executions by their ids, the first of them."""
        try:
            planned = await planned_effects(self._rules, event, self._endpoints)
            await self._carry_out(planned)
        except RuleFailed as failure:
            return DeadLetter("RULE_FAILED", str(failure))
        except WorkflowRefused as refusal:
            return DeadLetter("RULE_FAILED", f"rule {refusal.rule}: workflow: {refusal}")
        except JobsUnavailable as outage:
            log.warning("event_waits_for_jobs_database", error=str(outage))
            return Defer("JOBS_DATABASE_UNAVAILABLE", "the jobs database did not answer", OUTAGE_SECONDS)
        return Done([one.id for one in planned[:MOST_IDS_TOLD]])

    async def _carry_out(self, planned: Sequence[Effect]) -> None:
        """Do it all; what fails half-way is tried again whole, and nothing is done twice."""
        # First what may be refused: then nothing has been done.
        await self._workflows.carry_out([one for one in planned if isinstance(one, PlannedStart | PlannedSignal)])
        await self._defer([one for one in planned if isinstance(one, PlannedDeferral)])
        await self._add([one for one in planned if isinstance(one, PlannedJob)])

    async def _defer(self, planned: Sequence[PlannedDeferral]) -> None:
        try:
            await self._deferrals.defer(planned)
        except JobRefused as refusal:
            rules = ", ".join(dict.fromkeys(one.rule for one in planned))
            raise RuleFailed(f"rule {rules}: job: {refusal}") from refusal

    async def _add(self, planned: Sequence[PlannedJob]) -> None:
        """Add them queue by queue. What fails half-way is tried again whole, and adding an id again adds nothing."""
        for queue in dict.fromkeys(job.queue for job in planned):
            await self._queue(queue).add_bulk([job.job for job in planned if job.queue == queue])


async def planned_effects(rules: Sequence[Rule], event: EventJob, endpoints: EndpointDirectory) -> list[Effect]:
    """Return what the rules would do for an event, undone.

    Raises `RuleFailed` when the event does not fit one of them, and `DatabaseUnavailable`.
    """
    names = names_of(event)
    applicable = [rule for rule in rules if rule.applies(event.event_type, names)]
    return [effect for rule in applicable for effect in await rule.effects(event, names, endpoints)]
