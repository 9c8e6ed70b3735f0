"""`set`: something worked out, and remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict

from workflow_worker.steps.step import StepKind, ValuesField

if TYPE_CHECKING:
    from workflow_worker.steps.step import Occasion


class Set(StepKind):
    """Names of one's own, each with an expression, or with JSON in which texts are expressions."""

    model_config = ConfigDict(extra="allow", frozen=True, arbitrary_types_allowed=True)
    __pydantic_extra__: dict[str, ValuesField]

    async def run(self, occasion: Occasion) -> Any:
        """See `StepKind`. The output has the names with their values."""
        return await occasion.context.value(
            occasion.step.id,
            lambda: {name: occasion.values(name, values) for name, values in self.__pydantic_extra__.items()},
        )
