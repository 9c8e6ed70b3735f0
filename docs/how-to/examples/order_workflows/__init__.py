from typing import Any

from workflow_worker.context import StepCall, WorkflowContext
from workflow_worker.registry import function, workflow


@function("pricing.discount")
async def discount(_step: StepCall, *, total: int) -> dict[str, int]:
    """Say what is to be paid: ten per cent less."""
    return {"price": total * 9 // 10}


@workflow("order.ship", version=1)
async def ship(ctx: WorkflowContext) -> str:
    """Reserve a parcel, and give it back when nobody has picked it up within an hour."""
    parcel = await ctx.step("reserve", reserve)
    picked = await ctx.wait_event("picked", "parcel.picked", parcel["id"], timeout_seconds=3600)
    if picked is None:
        await ctx.sleep("nightfall", seconds=6 * 3600)
        await ctx.step("release", reserve)
    return "shipped" if picked else "released"


async def reserve(step: StepCall) -> dict[str, Any]:
    """Stand for a request to a warehouse that knows repetitions by the key."""
    return {"id": f"parcel-{step.idempotency_key}"}
