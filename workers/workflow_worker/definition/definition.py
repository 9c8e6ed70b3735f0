"""A definition that has been read: when it starts, what it accepts, and what it does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker_runtime.event_patterns import matches
from worker_runtime.expressions import ExpressionError
from worker_runtime.outcome import PermanentError
from workflow_worker.steps.step import Scene, Steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_runtime.expressions import Expression
    from workflow_worker.context import WorkflowContext
    from workflow_worker.definition.input_schema import InputSchema
    from workflow_worker.steps.speech import Values
    from workflow_worker.steps.step import Services

__all__ = ["Definition", "Trigger"]

EVENT_NAMES = ("event", "payload", "metadata")


@dataclass(frozen=True, slots=True)
class Trigger:
    """Which events start it: those that match `pattern` (`lead.created`, `lead.*`, `*`) and meet the condition."""

    pattern: str
    condition: Expression | None = None

    def wants(self, event_type: str, names: Mapping[str, Any]) -> bool:
        """Tell whether an event starts it; `names` are `event`, `payload` and `metadata`. Raises `ExpressionError`."""
        return matches(self.pattern, event_type) and (self.condition is None or self.condition.truth(names))


@dataclass(frozen=True, slots=True)
class Definition:
    """What one version of a rule says. `workflow` names one in Python that runs instead of steps."""

    name: str
    trigger: Trigger | None = None
    input: InputSchema | None = None
    workflow: str | None = None
    steps: Steps = field(default_factory=Steps)
    output: Values | None = None

    def input_problem(self, value: Any) -> str | None:
        """Say what is wrong with an input, with its path and without its data; `None` when nothing is."""
        return self.input.problem(value) if self.input is not None else None

    async def run(self, context: WorkflowContext, services: Services) -> Any:
        """Run it as far as it goes, and return its result: the output's values, or `None`.

        Raises what the context raises, and `PermanentError`.
        """
        scene = Scene(self.name, context, services, {})
        await self.steps.run(scene)
        if self.output is None:
            return None
        return self.output.value(lambda place, one: _value(scene, ".".join(map(str, ("output", *place))), one))


def _value(scene: Scene, place: str, expression: Expression) -> Any:
    try:
        return expression.value(scene.names)
    except ExpressionError as error:
        raise PermanentError("EXPRESSION_FAILED", f"{place}: {error}") from error
