"""Absurd's workers in the configuration that did best here: several in one process, for each has one connection."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import uvloop
from absurd_sdk import AsyncAbsurd, AsyncTaskContext

from benchmarks.workflows.effects import step

QUEUE, TASK = "bench", "bench.three"
WORKERS = int(os.environ.get("ABSURD_WORKERS", "16"))
AT_ONCE = int(os.environ.get("ABSURD_AT_ONCE", "4"))
POLL_SECONDS = float(os.environ.get("ABSURD_POLL_SECONDS", "0.25"))


async def three(order: dict[str, Any], context: AsyncTaskContext) -> dict[str, Any]:
    first = await context.step("first", lambda: step(order["number"], 1))
    second = await context.step("second", lambda: step(order["number"], 2))
    third = await context.step("third", lambda: step(order["number"], 3))
    return {"amount": first["amount"] + second["amount"] + third["amount"]}


async def worker(number: int) -> None:
    absurd = AsyncAbsurd(os.environ["DATABASE_URL"], queue_name=QUEUE)
    absurd.register_task(TASK)(three)
    await absurd.start_worker(worker_id=f"bench-{number}", concurrency=AT_ONCE, poll_interval=POLL_SECONDS)


async def main() -> None:
    await asyncio.gather(*map(worker, range(WORKERS)))


if __name__ == "__main__":
    uvloop.run(main())
