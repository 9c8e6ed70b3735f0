"""What the rules would make of an event, rule by rule, and why some make nothing of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from events_worker.actions.action import RuleFailed
from events_worker.expressions import names_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from events_worker.effects import Effect
    from events_worker.endpoints import EndpointDirectory
    from events_worker.event import EventJob
    from events_worker.rule import Rule


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule would do. `why` says why it does not apply, or which part of it the event does not fit."""

    rule: Rule
    applies: Literal["yes", "no", "fails"]
    why: str = ""
    effects: Sequence[Effect] = ()


async def rehearse(rules: Sequence[Rule], event: EventJob, endpoints: EndpointDirectory) -> list[Verdict]:
    """Ask every rule, doing nothing. As in earnest, one that fails takes what all others do with it."""
    names = names_of(event)
    verdicts = [await _verdict(rule, event, names, endpoints) for rule in rules]
    if any(verdict.applies == "fails" for verdict in verdicts):
        return [replace(verdict, effects=()) for verdict in verdicts]
    return verdicts


async def _verdict(rule: Rule, event: EventJob, names: Mapping[str, Any], endpoints: EndpointDirectory) -> Verdict:
    try:
        if not rule.applies(event.event_type, names):
            return Verdict(rule, "no", rule.objection(event.event_type, names))
        return Verdict(rule, "yes", effects=await rule.effects(event, names, endpoints))
    except RuleFailed as failure:
        return Verdict(rule, "fails", str(failure).removeprefix(f"rule {rule.name}: "))
