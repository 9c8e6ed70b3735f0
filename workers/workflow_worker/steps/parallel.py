"""`parallel`: several sequences of steps at the same time, and on when all are done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from workflow_worker.steps.step import StepKind, StepsField

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from worker_runtime.yaml_source import Place
    from workflow_worker.steps.step import Occasion

MOST_BRANCHES = 50


class Parallel(StepKind):
    """A branch sees the outputs of what ran before, not those of its neighbours; afterwards all are there."""

    branches: Annotated[list[StepsField], Field(min_length=1, max_length=MOST_BRANCHES)]

    @classmethod
    def places_of_steps(cls, written: Mapping[str, Any], /) -> Iterator[Place]:
        """See `StepKind`."""
        branches = written.get("branches")
        yield from (("branches", index) for index in range(len(branches) if isinstance(branches, list) else 0))

    async def run(self, occasion: Occasion) -> None:
        """See `StepKind`. There is no output beside the branches'."""
        scenes = [occasion.scene.branch() for _ in self.branches]
        runs = (branch.run(scene) for branch, scene in zip(self.branches, scenes, strict=True))
        await occasion.context.parallel(*runs)
        for scene in scenes:
            occasion.scene.outputs.update(scene.outputs)
