"""What happens between two statements of two people: everybody meets, and nobody's mistake stops the others."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from workflow_harness import ENABLE, ORGANISATION, Desk, engine
from workflow_worker.execution import Completed, Execution, StepRecord, Suspended
from workflow_worker.registry import workflow
from workflow_worker.store.claims import ClaimStore
from workflow_worker.store.ledger import LedgerStore, Write
from worker_runtime.postgres import BY_INDEX, Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from workflow_worker.context import StepCall, WorkflowContext

CAP = "UPDATE fw_module_settings SET fw_worker_max_concurrency = $1, fw_worker_batch_size = 50"
RUNNING = "SELECT count(*) FROM fw_workflow_executions WHERE status = 'running'"
WAITS_FOR_A_LOCK = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
gate = asyncio.Event


@workflow("idle")
async def idle(_ctx: WorkflowContext) -> None:
    """Be known."""


@pytest.fixture
async def desk(database_url: str) -> Desk:
    desk = Desk(database_url)
    await desk.enable()
    async with engine(database_url, idle, run=False):
        return desk


@pytest.fixture
async def databases(desk: Desk) -> AsyncIterator[list[Database]]:
    opened = [Database(desk.url, settings=BY_INDEX) for _ in range(6)]
    yield opened
    for one in opened:
        await one.close()


def claims_of(database: Database, name: str = "worker-1") -> ClaimStore:
    return ClaimStore(database, name)


async def claimed(database: Database, free: int = 50) -> dict[Any, Execution]:
    found = await claims_of(database).claim(free, free, [], "")
    return {execution.id: execution for execution in found.executions}


async def test_a_child_that_ends_while_its_parent_lies_down_wakes_it(desk: Desk, databases: list[Database]) -> None:
    parent = await desk.start("idle")
    child = await desk.value(
        "SELECT fw_workflow_start($1, 'idle', '{}', NULL, NULL, NULL, $2, 'child')", ORGANISATION, parent
    )
    held = await claimed(databases[0])
    begun = held[parent].claimed_at
    waits = StepRecord("child", "workflow", "waiting", {"executionId": str(child)}, begun)
    async with desk.connected() as by_hand:
        # As a worker ends it: the token is taken, and the commit takes its time.
        await by_hand.execute("BEGIN")
        await by_hand.execute(
            "UPDATE fw_workflow_executions SET status = 'completed', lease_token = lease_token + 1, result = '1' WHERE id = $1",
            child,
        )
        lies_down = asyncio.create_task(
            LedgerStore(databases[1], "worker-1").write([Write(held[parent], [waits], Suspended(None))])
        )
        async with asyncio.timeout(10):
            while not lies_down.done() and not await desk.value(WAITS_FOR_A_LOCK):
                await asyncio.sleep(0.01)
        await by_hand.execute("COMMIT")
    await lies_down
    assert await desk.value("SELECT ready_at <= now() FROM fw_workflow_executions WHERE id = $1", parent)


async def test_one_that_is_asked_to_end_does_not_lie_down_first(desk: Desk, databases: list[Database]) -> None:
    execution = await desk.start("idle")
    held = await claimed(databases[0])
    assert await desk.value("SELECT fw_workflow_cancel(ARRAY [$1::uuid], 'why not')", execution) == 1
    await LedgerStore(databases[1], "worker-1").write([Write(held[execution], [], Suspended(None))])
    assert (await claimed(databases[0]))[execution].cancel_requested


@pytest.mark.parametrize("cap", [1, 3])
async def test_workers_that_claim_at_once_keep_to_the_cap_together(
    desk: Desk, databases: list[Database], cap: int
) -> None:
    await desk.rows(CAP, cap)
    ledger = LedgerStore(databases[0], "worker-1")
    for _ in range(30):
        for _ in range(cap * 6):
            await desk.start("idle")
        rounds = await asyncio.gather(*(claimed(database) for database in databases))
        held = [execution for found in rounds for execution in found.values()]
        assert len(held) == await desk.value(RUNNING) <= cap
        await ledger.write([Write(execution, [], Completed(None)) for execution in held])


@pytest.mark.parametrize(
    "given", ["[" * 2_000 + "]" * 2_000, "9" * 5_000], ids=["deeply nested", "a number of 5,000 digits"]
)
async def test_what_python_cannot_read_fails_alone(desk: Desk, given: str) -> None:
    bad = await desk.value("SELECT fw_workflow_start($1, 'idle', $2::jsonb)", ORGANISATION, given)
    good = await desk.start("idle")
    async with engine(desk.url, idle):
        assert (await desk.until(good, "completed"))["total_attempts"] == 1
        failed = await desk.until(bad, "failed")
    assert failed["last_error"].startswith("UNREADABLE: ")
