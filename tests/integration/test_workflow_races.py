"""What happens between two statements of two people: everybody meets, and nobody's mistake stops the others."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from worker_runtime.postgres import BY_INDEX, Database
from workflow_harness import ORGANISATION, Desk, engine
from workflow_worker.execution import Completed, EventWait, Execution, StepRecord, Suspended
from workflow_worker.registry import workflow
from workflow_worker.store.claims import CHILDREN, DELIVERIES, MOST_RESULT_BYTES, ClaimStore
from workflow_worker.store.ledger import LedgerStore, Write
from workflow_worker.store.upkeep import UpkeepStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from workflow_worker.context import StepCall, WorkflowContext

CAP = "UPDATE fw_module_settings SET fw_worker_max_concurrency = $1, fw_worker_batch_size = 50"
RUNNING = "SELECT count(*) FROM fw_workflow_executions WHERE status = 'running'"
WAITS_FOR_A_LOCK = (
    "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


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
            "UPDATE fw_workflow_executions SET status = 'completed', lease_token = lease_token + 1 WHERE id = $1",
            child,
        )
        lies_down = asyncio.create_task(
            LedgerStore(databases[1], "worker-1").write([Write(held[parent], [waits], Suspended(None))])
        )
        async with asyncio.timeout(10):
            while not lies_down.done() and not await desk.value(WAITS_FOR_A_LOCK):  # noqa: ASYNC110  nobody is told of a lock
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


async def test_families_that_change_from_all_sides_never_deadlock(desk: Desk, databases: list[Database]) -> None:
    await desk.rows(f"ALTER DATABASE {await desk.value('SELECT current_database()')} SET deadlock_timeout = '5ms'")
    await desk.rows("UPDATE fw_module_settings SET fw_worker_batch_size = 50")
    child = "SELECT fw_workflow_start($1, 'idle', '{}', NULL, NULL, NULL, $2, 'child')"
    ledgers = [LedgerStore(database, name) for database, name in zip(databases[:2], "ab", strict=True)]
    for _ in range(25):
        one, other = await desk.start("idle"), await desk.start("idle")
        of_one, of_other = [await desk.value(child, ORGANISATION, parent) for parent in (one, other)]
        held = await claimed(databases[2])
        # Each worker has a parent, and a child of the other's. A deadlock raises.
        await asyncio.gather(
            ledgers[0].write([Write(held[one], [], Suspended(None)), Write(held[of_other], [], Completed(None))]),
            ledgers[1].write([Write(held[other], [], Suspended(None)), Write(held[of_one], [], Completed(None))]),
            desk.value("SELECT fw_workflow_cancel(ARRAY [$1::uuid, $2], 'why not')", other, one),
            desk.rows("UPDATE fw_module_settings SET worker_running = true"),
            desk.rows("UPDATE fw_module_settings SET worker_running = false"),
        )
        await desk.rows("DELETE FROM fw_workflow_executions")


async def test_a_crowd_that_waits_is_told_bit_by_bit(desk: Desk, databases: list[Database]) -> None:
    await desk.rows(
        "WITH crowd AS (INSERT INTO fw_workflow_executions (organization_id, workflow, status, ready_at)"
        " SELECT $1, 'idle', 'waiting', 'infinity' FROM generate_series(1, 10500) RETURNING id)"
        " INSERT INTO fw_workflow_waits (execution_id, step, organization_id, event_name, correlation)"
        " SELECT id, 'bell', $1, 'bell', 'rings' FROM crowd",
        ORGANISATION,
    )
    assert await desk.signal("bell", "rings") == 10_500
    ready = "SELECT count(*) FROM fw_workflow_executions WHERE ready_at <= now()"
    assert await desk.value(ready) == 10_000
    assert (await UpkeepStore(databases[0]).sweep()).woken == 500
    assert await desk.value(ready) == 10_500
    assert (await UpkeepStore(databases[0]).sweep()).woken == 0


async def test_signals_of_before_are_not_counted_through(desk: Desk, databases: list[Database]) -> None:
    await desk.rows(
        "INSERT INTO fw_workflow_signals (organization_id, event_name, correlation)"
        " SELECT $1, 'bell', 'rings' FROM generate_series(1, 20000)",
        ORGANISATION,
    )
    execution = await desk.start("idle")
    wait = Suspended(None, [EventWait("bell", "bell", "rings", 0)])
    held = await claimed(databases[0])
    await LedgerStore(databases[1], "worker-1").write([Write(held[execution], [], wait)])
    assert await desk.value("SELECT status = 'waiting' AND ready_at = 'infinity' FROM fw_workflow_executions")
    await desk.signal("bell", "rings", {"nr": 1})
    async with desk.connected() as connection:
        for name, value in BY_INDEX.items():
            await connection.execute(f"SET {name} = {value}")
        plan = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {DELIVERIES}", [execution])
    assert json.loads(plan[0][0])[0]["Plan"]["Shared Hit Blocks"] < 50
    again = (await claimed(databases[0]))[execution]
    assert again.deliveries["bell"].payload == {"nr": 1}


async def test_what_a_parent_still_asks_for_outlives_its_days(desk: Desk, databases: list[Database]) -> None:
    parent = await desk.start("idle")
    await desk.rows(
        "INSERT INTO fw_workflow_executions (organization_id, workflow, status, parent_id, completed_at)"
        " SELECT $1, 'idle', ending, $2, now() - interval '40 days' FROM unnest('{completed,failed}'::text[]) ending",
        ORGANISATION,
        parent,
    )
    upkeep = UpkeepStore(databases[0])
    assert await upkeep.purge(30, 90) == 0
    await desk.rows("UPDATE fw_workflow_executions SET status = 'cancelled' WHERE id = $1", parent)
    assert await upkeep.purge(30, 90) == 1
    assert await upkeep.purge(30, 39) == 1


async def test_workers_that_purge_at_once_share(desk: Desk, databases: list[Database]) -> None:
    await desk.rows(
        "INSERT INTO fw_workflow_executions (organization_id, workflow, status, completed_at)"
        " SELECT $1, 'idle', 'completed', now() - interval '40 days' FROM generate_series(1, 3000)",
        ORGANISATION,
    )
    assert sum(await asyncio.gather(*(UpkeepStore(one).purge(30, 90) for one in databases[:3]))) >= 1_000
    for _ in range(2):
        await UpkeepStore(databases[0]).purge(30, 90)
    assert await desk.value("SELECT count(*) FROM fw_workflow_executions") == 0


async def test_a_vanished_worker_is_forgotten_with_the_next_step(desk: Desk, databases: list[Database]) -> None:
    execution = await desk.start("idle")
    await claimed(databases[0])
    await desk.rows("UPDATE fw_workflow_executions SET ready_at = now()")
    held = (await claimed(databases[0]))[execution]
    assert held.crash_count == 1
    write = Write(held, [], Suspended(None), progressed=True)
    await LedgerStore(databases[1], "worker-1").write([write])
    assert (await desk.execution(execution))["crash_count"] == 0


async def test_two_starts_of_one_key_at_once_are_one(desk: Desk) -> None:
    started = await asyncio.gather(*(desk.start("idle", key="k") for _ in range(20)))
    assert len(set(started)) == 1
    assert await desk.value("SELECT count(*) FROM pgmq.q_workflow_execution_queue") == 1


async def test_an_event_that_did_not_come_in_time_is_waited_for_again(desk: Desk) -> None:
    @workflow("patient")
    async def patient(ctx: WorkflowContext) -> Any:
        return await ctx.wait_event("bell", "bell", "rings", timeout_seconds=ctx.input["seconds"], fails=True)

    async with engine(desk.url, patient):
        execution = await desk.start("patient", {"seconds": 0.05})
        failed = await desk.until(execution, "failed")
        assert failed["last_error"] == "EVENT_TIMEOUT: step bell: bell did not come in time"
        await desk.rows("UPDATE fw_workflow_executions SET input = '{\"seconds\": 60}', status = 'queued'")
        await desk.until(execution, "waiting")
        await desk.signal("bell", "rings", "now")
        done = await desk.until(execution, "completed")
    assert json.loads(done["result"])["payload"] == "now"


async def test_a_journal_has_an_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflow_worker.context.MOST_JOURNAL_CHARACTERS", 10_000)

    @workflow("talks")
    async def talks(ctx: WorkflowContext) -> None:
        while True:
            await ctx.step("word", say)

    async def say(_step: StepCall) -> str:
        return "x" * 800

    async with engine(desk.url, talks):
        execution = await desk.start("talks")
        failed = await desk.until(execution, "failed")
    assert failed["last_error"].startswith("JOURNAL_TOO_LARGE: ")
    assert len(await desk.steps(execution)) == 10


async def test_children_that_end_together_are_told_bit_by_bit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "workflow_worker.store.claims.CHILDREN", CHILDREN.replace(str(MOST_RESULT_BYTES), "2500"), raising=True
    )

    @workflow("big child")
    async def big_child(_ctx: WorkflowContext) -> str:
        return "".join(map(str, range(400)))

    @workflow("parent of ten")
    async def parent_of_ten(ctx: WorkflowContext) -> int:
        return len(await ctx.parallel(*(ctx.run(f"child {number}", "big child") for number in range(10))))

    async with engine(desk.url, big_child, parent_of_ten):
        done = await desk.until(await desk.start("parent of ten"), "completed")
    assert done["result"] == "10"


async def test_a_person_who_holds_one_execution_holds_up_no_other(desk: Desk) -> None:
    go_on, begun = asyncio.Event(), asyncio.Event()

    @workflow("slow")
    async def slow(ctx: WorkflowContext) -> None:
        await ctx.step("one", wait)
        await ctx.step("two", wait)

    async def wait(_step: StepCall) -> None:
        begun.set()
        await go_on.wait()

    async with engine(desk.url, slow, idle) as worker, desk.connected() as person:
        held = await desk.start("slow")
        await begun.wait()
        await person.execute("BEGIN")
        await person.execute("UPDATE fw_workflow_executions SET trace = trace WHERE id = $1", held)
        others = [await desk.start("slow") for _ in range(5)]
        await desk.soon("SELECT count(*) = 6 FROM fw_workflow_executions WHERE status = 'running'")
        # Every lease is due, and the person holds one of the rows.
        for one in worker.leases._held.values():
            one.renewed_at -= one.execution.visibility_seconds * 0.5
        await asyncio.wait_for(worker.leases.renew(), 2)
        assert sum(one.is_due for one in worker.leases._held.values()) == 1
        go_on.set()
        for other in others:
            await desk.until(other, "completed", seconds=10)
        assert (await desk.execution(held))["status"] == "running"
        await person.execute("COMMIT")
        assert (await desk.until(held, "completed"))["crash_count"] == 0
