"""One routing rule, ready to be applied: when it applies, why it does not, and the jobs it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from events_worker.actions.action import Occasion, RuleFailed
from events_worker.expressions import ExpressionError
from worker_runtime.event_patterns import matches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from events_worker.actions.action import Action, PlannedJob
    from events_worker.conditions import Condition
    from events_worker.endpoints import EndpointDirectory
    from events_worker.event import EventJob


@dataclass(frozen=True, slots=True)
class Rule:
    """What one entry of a rules file says; `line` is where it starts there.

    Events come with their `names`, what expressions may speak of: made once for all rules.
    """

    name: str
    line: int
    pattern: str
    condition: Condition | None
    actions: Mapping[str, Action]

    def applies(self, event_type: str, names: Mapping[str, Any]) -> bool:
        """Tell whether the event makes jobs by this rule; raises `RuleFailed` when the condition has no answer."""
        if not matches(self.pattern, event_type):
            return False
        try:
            return self.condition is None or self.condition.truth(names)
        except ExpressionError as error:
            raise RuleFailed(f"rule {self.name}: when: {error}") from error

    def objection(self, event_type: str, names: Mapping[str, Any]) -> str:
        """Say why the rule does not apply to an event to which it does not."""
        if self.condition is None or not matches(self.pattern, event_type):
            return f"it is for {self.pattern}"
        return self.condition.false_because(names)

    async def jobs(self, event: EventJob, names: Mapping[str, Any], endpoints: EndpointDirectory) -> list[PlannedJob]:
        """Return the jobs of all its actions, without adding them; raises `RuleFailed` when the event does not fit."""
        occasion = Occasion(self.name, event, names, endpoints)
        return [job for action in self.actions.values() for job in await action.jobs(occasion)]
