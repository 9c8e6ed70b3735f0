"""Workflows and functions in Python, loaded into real workers by WORKFLOW_PACKAGES=chaos.workflows.watched.

Their effects are the receiver's, as those of steps `http` are; what kills or blocks its process is here, too.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import workflow_worker.worker
from chaos.history import Pen
from chaos.workflows.crash_points import lay_out
from worker_runtime.postgres import Database
from workflow_worker.execution import StepRetry
from workflow_worker.registry import function, workflow

if TYPE_CHECKING:
    from workflow_worker.context import StepCall, WorkflowContext

HURRIED = StepRetry(5, (0.1, 0.2))
pen = Pen(Path(os.environ["CHAOS_HISTORY"]))


class NotAccepted(Exception):
    """The receiver did not answer 200."""


@workflow("chaos.code")
async def code(ctx: WorkflowContext) -> dict[str, Any]:
    """Have two effects around a pause and, beside each other, a third that fails first and an event."""
    first = await ctx.step("first", lambda step: post(ctx, step), retry=HURRIED)
    await ctx.sleep("pause", seconds=ctx.input["seconds"])
    _, met = await ctx.parallel(
        ctx.step("flaky", lambda step: post(ctx, step, fails=ctx.input["fails"]), retry=HURRIED),
        ctx.wait_event("approved", "chaos.approved", ctx.input["n"]),
    )
    last = await ctx.step("last", lambda step: post(ctx, step), retry=HURRIED)
    return {"first": first, "met": bool(met), "last": last}


@function("chaos.exit")
async def leave(step: StepCall) -> None:
    """Take the process away without a word."""
    tell(step)
    os._exit(1)


@function("chaos.crash")
async def crash(step: StepCall) -> None:
    """Read what no process may."""
    tell(step)
    ctypes.string_at(0)


@function("chaos.block")
async def block(step: StepCall, *, seconds: float) -> str:
    """Let nothing else in this process run for so long."""
    tell(step)
    time.sleep(seconds)  # noqa: ASYNC251  for this is the fault
    return "done"


@function("chaos.rest")
async def rest(step: StepCall, *, seconds: float) -> str:
    """Take a while, as steps do."""
    tell(step)
    await asyncio.sleep(seconds)
    return "done"


def tell(step: StepCall) -> None:
    """Tell that a step has begun."""
    pen.tell("begun", event=str(step.execution_id), handler=step.step, run=step.idempotency_key)


async def post(ctx: WorkflowContext, step: StepCall, *, fails: int = 0) -> str:
    """Ask the receiver, as a step `http` does."""
    body = json.dumps({"execution": str(step.execution_id), "step": step.step, "fails": fails}).encode()
    host, port = ctx.input["receiver"].removeprefix("http://").partition("/")[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        lines = [
            "POST /effects HTTP/1.1",
            f"Content-Length: {len(body)}",
            f"Idempotency-Key: {step.idempotency_key}",
            "Connection: close",
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        answer = (await reader.read()).decode()
    finally:
        writer.close()
    if " 200 " not in answer.partition("\r\n")[0]:
        raise NotAccepted
    return step.step


def named(url: str, application: str, **settings: Any) -> Database:
    """Return a connection that tells PostgreSQL, and so the audit, whose process it is."""
    return Database(url, application=f"{application} {os.getpid()}", **settings)


workflow_worker.worker.Database = named  # type: ignore[attr-defined,assignment]
lay_out()
