"""Our three steps, for WORKFLOW_PACKAGES."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.workflows.effects import step
from workflow_worker.registry import workflow

if TYPE_CHECKING:
    from workflow_worker.context import WorkflowContext


@workflow("bench.three", version=1)
async def three(ctx: WorkflowContext) -> dict[str, Any]:
    number = ctx.input["number"]
    first = await ctx.step("first", lambda _: step(number, 1))
    second = await ctx.step("second", lambda _: step(number, 2))
    third = await ctx.step("third", lambda _: step(number, 3))
    return {"amount": first["amount"] + second["amount"] + third["amount"]}
