"""Organisations' own workflows: started by the events that their rules name, and told of those that they wait for."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from events_worker.effects import FailedStart, PlannedSignal, PlannedStart
from events_worker.expressions import Expression, ExpressionError, names_of
from events_worker.store import WORKFLOWS, NoSuchWorkflow, WorkflowRefused
from worker_runtime.outcome import DeadLetter, Defer, Done
from worker_runtime.telemetry import inject

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from events_worker.context import HandlerContext
    from events_worker.event import EventJob
    from events_worker.store import TriggeredRule
    from events_worker.workflows import Workflows
    from worker_runtime.outcome import Outcome

# A rule was switched off between the question and the start: the next look does not find it any more.
AGAIN_SECONDS = 0.1
# A job's result stays under 4 KB.
MOST_IDS_TOLD = 50
# Conditions are compiled once in a while, not for each event.
compiled = functools.lru_cache(1024)(Expression)


class OrganizationWorkflows:
    """Starts every active rule of the event's organisation whose trigger fits, and passes the event on as a signal.

    It has a receipt of its own, so that a routing rule that fails does not make it run again. Most events never get
    here: see `store.turns.LOOK`.
    """

    name = WORKFLOWS
    pattern = "*"
    timeout_seconds = 30.0

    def __init__(self, workflows: Workflows) -> None:
        self._workflows = workflows

    async def handle(self, event: EventJob, context: HandlerContext) -> Outcome:
        """See `EventHandler`. The result lists the executions by their ids, the first of them."""
        concern = await self._workflows.concern(event.tenant_id, event.event_type)
        names = names_of(event)
        starts = [_start(rule, event, context, names) for rule in concern.rules]
        effects = [start for start in starts if start is not None]
        try:
            await self._workflows.carry_out([*effects, *([_signal(event, context, names)] if concern.awaited else [])])
        except NoSuchWorkflow as gone:
            return Defer("WORKFLOW_SWITCHED_OFF", str(gone), AGAIN_SECONDS)
        except WorkflowRefused as refusal:
            return DeadLetter("WORKFLOW_REFUSED", str(refusal))
        return Done([effect.id for effect in effects if isinstance(effect, PlannedStart)][:MOST_IDS_TOLD])


def _start(
    rule: TriggeredRule, event: EventJob, context: HandlerContext, names: Mapping[str, Any]
) -> PlannedStart | FailedStart | None:
    start = PlannedStart(context.id_of(rule.id), event.tenant_id, rule.name, names, trace=inject())
    try:
        return start if rule.condition is None or compiled(rule.condition).truth(names) else None
    except ExpressionError as error:
        # One organisation's mistake: told where it looks for its executions, and in nobody's way.
        return FailedStart(start, f"INVALID_TRIGGER: when: {error}")


def _signal(event: EventJob, context: HandlerContext, names: Mapping[str, Any]) -> PlannedSignal:
    who = (event.tenant_id, event.event_type, event.aggregate_id)
    return PlannedSignal(context.id_of("signal"), *who, names["payload"])
