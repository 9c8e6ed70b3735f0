"""`intelliflow workflow` beside a worker that is at work: both change the same executions."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from worker_runtime.outcome import PermanentError
from workflow_harness import ORGANISATION, Desk, engine
from workflow_worker.registry import workflow

if TYPE_CHECKING:
    from workflow_worker.context import StepCall, WorkflowContext

NOT_OVER = "SELECT count(*) FROM fw_workflow_executions WHERE status NOT IN ('cancelled', 'completed', 'failed')"


@pytest.fixture
async def desk(database_url: str) -> Desk:
    desk = Desk(database_url)
    await desk.enable()
    return desk


async def intelliflow(desk: Desk, *line: str) -> Any:
    """Run a command in a process of its own, as people do, and return its data."""
    command = [sys.executable, "-m", "worker_ops", "workflow", *line, "-o", "json"]
    environment = os.environ | {"DATABASE_URL": desk.url}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


class Doing:
    """Steps that a test counts, lets fail, and holds up."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.broken = True
        self.may_end = asyncio.Event()

    async def act(self, step: StepCall) -> str:
        self.begun.append(step.step)
        return step.step

    async def fail(self, step: StepCall) -> str:
        self.begun.append(step.step)
        if self.broken:
            raise PermanentError("OUT_OF_STOCK", "there is none left")
        return step.step

    async def hold(self, step: StepCall) -> str:
        self.begun.append(step.step)
        await self.may_end.wait()
        return step.step


async def test_what_failed_goes_on_at_the_step_that_failed(desk: Desk) -> None:
    doing = Doing()

    @workflow("order")
    async def order(ctx: WorkflowContext) -> Any:
        return [await ctx.step("load", doing.act), await ctx.step("charge", doing.fail)]

    async with engine(desk.url, order):
        name = (await intelliflow(desk, "start", ORGANISATION, "order"))["executionId"]
        await desk.until(UUID(name), "failed")
        (dead,) = await intelliflow(desk, "dlq", "--org", ORGANISATION)
        assert (dead["executionId"], dead["error"]) == (name, "OUT_OF_STOCK: step charge: there is none left")
        doing.broken = False
        assert await intelliflow(desk, "retry", "--org", ORGANISATION, "--error", "out_of_stock", "--apply") == [
            {"matched": 1, "reopened": 1}
        ]
        await desk.until(UUID(name), "completed")
        shown = await intelliflow(desk, "show", name)
    assert doing.begun == ["load", "charge", "charge"]
    assert [(step["step"], step["status"], step["round"]) for step in shown["steps"]] == [
        ("load", "completed", 0),
        ("charge", "failed", 0),
        ("charge", "completed", 1),
    ]
    assert await intelliflow(desk, "dlq") == []


def held_up(doing: Doing) -> Any:
    """Return a workflow whose first step is held up, and which has started another."""

    @workflow("child")
    async def child(ctx: WorkflowContext) -> Any:
        return await ctx.wait_event("told", "never", "x")

    @workflow("parent")
    async def parent(ctx: WorkflowContext) -> Any:
        await ctx.parallel(ctx.run("child", "child"), ctx.step("hold", doing.hold))
        return await ctx.step("after", doing.act)

    return child, parent


async def at_work(desk: Desk, doing: Doing) -> str:
    """Start it and return its id once the step is held up and the child waits."""
    name: str = (await intelliflow(desk, "start", ORGANISATION, "parent"))["executionId"]
    await desk.soon("SELECT EXISTS (SELECT FROM fw_workflow_waits)")
    assert doing.begun == ["hold"]
    return name


async def test_one_that_is_at_work_is_cancelled_before_its_next_step_and_its_child_at_once(desk: Desk) -> None:
    doing = Doing()
    async with engine(desk.url, *held_up(doing)):
        name = await at_work(desk, doing)
        assert await intelliflow(desk, "cancel", name, "--apply") == [
            {"executionId": name, "outcome": "ends at its next step"}
        ]
        await desk.soon("SELECT count(*) = 1 FROM fw_workflow_executions WHERE status = 'cancelled'")
        doing.may_end.set()
        await desk.until(UUID(name), "cancelled")
    assert doing.begun == ["hold"]
    assert await desk.value(NOT_OVER) == 0


async def test_a_purge_takes_it_out_of_the_workers_hands(desk: Desk) -> None:
    doing = Doing()
    async with engine(desk.url, *held_up(doing)):
        name = await at_work(desk, doing)
        (purged,) = await intelliflow(desk, "purge", ORGANISATION, "--apply", "--by", "ann")
        assert purged == {"matched": 2, "cancelled": 2, "messagesRemoved": 2}
        doing.may_end.set()
    row = await desk.row("SELECT status, last_error FROM fw_workflow_executions WHERE id = $1", name)
    assert tuple(row) == ("cancelled", "CANCELLED: purged by ann")
    assert doing.begun == ["hold"]
    assert await desk.value("SELECT count(*) FROM fw_workflow_steps WHERE step = 'hold'") == 0
    assert await desk.value("SELECT count(*) FROM pgmq.q_workflow_execution_queue") == 0
