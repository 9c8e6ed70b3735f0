"""`call`: a function in Python that a team has registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from worker_runtime.outcome import PermanentError
from workflow_worker.context import TIMEOUT_SECONDS
from workflow_worker.steps.step import Name, StepKind, ValuesField

if TYPE_CHECKING:
    from workflow_worker.context import StepCall
    from workflow_worker.steps.step import Occasion


class Call(StepKind):
    """It may run more than once: `step.idempotency_key` is the same each time."""

    is_tried: ClassVar[bool] = True

    function: Name
    arguments: dict[str, ValuesField] = Field(default_factory=dict)

    @field_validator("arguments")
    @classmethod
    def _have_names(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if strange := [name for name in arguments if not name.isidentifier()]:
            raise ValueError(f"{strange[0]} is no name of an argument in Python")
        return arguments

    async def run(self, occasion: Occasion) -> Any:
        """See `StepKind`. The output is what the function returns, which is JSON."""
        return await occasion.effect(lambda call: self._call(occasion, call), occasion.seconds(TIMEOUT_SECONDS))

    async def _call(self, occasion: Occasion, call: StepCall) -> Any:
        function = occasion.scene.services.functions.get(self.function)
        if function is None:
            raise PermanentError("UNKNOWN_FUNCTION", f"this worker has no function {self.function}")
        arguments = {name: occasion.values(f"arguments.{name}", one) for name, one in self.arguments.items()}
        return await function(call, **arguments)
