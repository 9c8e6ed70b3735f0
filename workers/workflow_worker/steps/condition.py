"""`condition`: one way or the other. Which one is remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from workflow_worker.steps.step import ExpressionField, StepKind, Steps, StepsField

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from worker_runtime.yaml_source import Place
    from workflow_worker.steps.step import Occasion


class Condition(StepKind):
    """What is missing in `if` is false."""

    if_: ExpressionField = Field(alias="if")
    then: StepsField
    else_: StepsField = Field(default_factory=Steps, alias="else")

    @classmethod
    def places_of_steps(cls, written: Mapping[str, Any], /) -> Iterator[Place]:
        """See `StepKind`."""
        yield from ((key,) for key in ("then", "else") if key in written)

    async def run(self, occasion: Occasion) -> Any:
        """See `StepKind`. The output is `{branch: then}` or `{branch: else}`."""
        taken: dict[str, str] = await occasion.context.value(
            occasion.step.id, lambda: {"branch": "then" if occasion.truth("if", self.if_) else "else"}, kind="condition"
        )
        await (self.then if taken["branch"] == "then" else self.else_).run(occasion.scene)
        return taken
