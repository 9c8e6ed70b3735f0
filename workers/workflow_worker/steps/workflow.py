"""`workflow`: another workflow of the organisation, and its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workflow_worker.steps.step import Name, StepKind, ValuesField

if TYPE_CHECKING:
    from workflow_worker.steps.step import Occasion


class Workflow(StepKind):
    """A rule by its name, or a workflow in Python by its own. Its input is `{}` where none is given."""

    start: Name
    input: ValuesField | None = None

    async def run(self, occasion: Occasion) -> Any:
        """See `StepKind`. The output is the other's result."""
        given = {} if self.input is None else occasion.values("input", self.input)
        return await occasion.context.run(occasion.step.id, self.start, given)
