"""Turns events into notification jobs, by rules that need no Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, UUID, uuid5

from events_worker.expressions import names_of
from events_worker.rules import RuleFailed
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.outcome import DeadLetter, Done
from worker_runtime.telemetry import inject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from events_worker.context import HandlerContext
    from events_worker.event import EventJob
    from events_worker.rules import CompiledRule
    from worker_runtime.bullmq.producer import JobQueue
    from worker_runtime.outcome import Outcome

# BullMQ serves what has no priority before any that has one, and 1 before 100.
LOW_PRIORITY = 100


class Routing:
    """Applies every rule to every event; all notifications of an event are made, or none."""

    name = "routing"
    pattern = "*"
    timeout_seconds = 30.0

    def __init__(self, rules: Sequence[CompiledRule], queue: Callable[[str], JobQueue]) -> None:
        self._rules = rules
        self._queue = queue

    async def handle(self, event: EventJob, context: HandlerContext) -> Outcome:  # noqa: ARG002  ids are the rules'
        """See `EventHandler`. The result lists the notifications by their ids."""
        names = names_of(event)
        try:
            made = [
                (rule.channel, notification_job(rule, event, names))
                for rule in self._rules
                if rule.applies(event.event_type, names)
            ]
        except RuleFailed as failure:
            return DeadLetter("RULE_FAILED", str(failure))
        for channel in dict.fromkeys(channel for channel, _ in made):
            await self._queue(channel).add_bulk([job for wanted, job in made if wanted == channel])
        return Done([job.job_id for _, job in made])


def notification_job(rule: CompiledRule, event: EventJob, names: Mapping[str, Any]) -> NewJob:
    """Return the job of the notification that `rule` makes of `event`; raises `RuleFailed`."""
    notification_id = notification_id_of(event.effects_id, rule.name)
    return NewJob(
        name=rule.channel.lower(),
        data={
            "notificationId": notification_id,
            "tenantId": event.tenant_id,
            "channel": rule.channel,
            "priority": rule.priority,
            "recipient": rule.recipient(names),
            "content": rule.content(names),
            "metadata": _origin(rule, event),
        },
        job_id=notification_id,
        priority=LOW_PRIORITY if rule.priority == "LOW" else 0,
        lifo=rule.priority == "URGENT",
        options={"tm": carrier} if (carrier := inject()) else {},
    )


def notification_id_of(event_id: str, rule_name: str) -> str:
    """Return the UUIDv5 of event and rule: the same notification however often the event is handled."""
    return str(uuid5(_namespace(event_id), rule_name))


def _namespace(event_id: str) -> UUID:
    try:
        return UUID(event_id)
    except ValueError:
        return uuid5(NAMESPACE_URL, event_id)


def _origin(rule: CompiledRule, event: EventJob) -> dict[str, str]:
    return {
        "eventId": event.event_id,
        "eventType": event.event_type,
        "rule": rule.name,
        "correlationId": event.metadata.correlation_id,
        "causationId": event.event_id,
    }
