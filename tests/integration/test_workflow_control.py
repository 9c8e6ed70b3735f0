"""Who may run executions, and when: leases, fences, switches, turns - and the hands of an operator."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from workflow_harness import ORGANISATION, Desk, engine
from workflow_worker.execution import StepRetry
from workflow_worker.registry import workflow

if TYPE_CHECKING:
    from workflow_worker.context import StepCall, WorkflowContext

EXPIRE = "UPDATE fw_workflow_executions SET ready_at = now() WHERE status = 'running'"
SCHEDULE = """
SELECT cron.schedule('process-workflow-queue', '* * * * *',
                     $$SELECT util.invoke_edge_function('workflow-executor-worker', '{}'::jsonb);$$)
"""
RETRY_OF_THE_GUIDE = """
WITH dlq_msg AS (SELECT msg_id, message FROM pgmq.q_workflow_dlq WHERE msg_id = $1)
SELECT pgmq.send('workflow_execution_queue', jsonb_set(message, '{attempt}', '1'::jsonb)) FROM dlq_msg
"""
effects: Counter[str] = Counter()
gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def clean() -> None:
    effects.clear()
    gates.clear()


@pytest.fixture
async def desk(database_url: str) -> Desk:
    desk = Desk(database_url)
    await desk.enable()
    return desk


async def act(step: StepCall) -> str:
    effects[step.step] += 1
    return step.step


async def act_and_hang(step: StepCall) -> str:
    """Say that it has begun, and do not end before the gate opens."""
    effects[step.step] += 1
    gates.setdefault("begun", asyncio.Event()).set()
    await gates.setdefault("open", asyncio.Event()).wait()
    return step.step


@workflow("gated")
async def gated(ctx: WorkflowContext) -> Any:
    return [await ctx.step("a", act_and_hang), await ctx.step("b", act)]


@workflow("one")
async def one_step(ctx: WorkflowContext) -> Any:
    return await ctx.step("only", act)


@workflow("poison")
async def poison(ctx: WorkflowContext) -> Any:
    await ctx.step("kills", act_and_hang)


@workflow("fails")
async def fails(ctx: WorkflowContext) -> Any:
    async def fail(step: StepCall) -> None:
        await act(step)
        if effects["fail"] <= ctx.input.get("failures", 99):
            raise OSError

    await ctx.step("before", act)
    await ctx.step("fail", fail, retry=StepRetry(5, (0.0,)))


async def begun() -> None:
    await asyncio.wait_for(gates.setdefault("begun", asyncio.Event()).wait(), 10)


class TestLeases:
    async def test_a_vanished_worker_s_execution_goes_on_elsewhere(self, desk: Desk) -> None:
        async with engine(desk.url, gated) as first:
            execution = await desk.start("gated")
            await begun()
            await first.vanish()
        assert (await desk.execution(execution))["status"] == "running"
        gates["open"].set()
        await desk.rows(EXPIRE)
        async with engine(desk.url, gated, name="worker-2"):
            row = await desk.until(execution, "completed")
        assert effects == {"a": 2, "b": 1}
        assert (row["total_attempts"], row["crash_count"]) == (1, 0)

    async def test_whoever_lost_an_execution_writes_nothing(self, desk: Desk) -> None:
        async with engine(desk.url, gated) as frozen:
            execution = await desk.start("gated")
            await begun()
            await frozen.freeze()
            await desk.rows(EXPIRE)
            async with engine(desk.url, gated, name="worker-2"):
                await desk.soon("SELECT lease_owner = 'worker-2' FROM fw_workflow_executions WHERE id = $1", execution)
                gates["open"].set()
                row = await desk.until(execution, "completed")
            assert effects == {"a": 2, "b": 1}
            assert {step["worker"] for step in await desk.steps(execution)} == {"worker-2"}
        assert (await desk.execution(execution))["lease_token"] == row["lease_token"]

    async def test_leases_are_renewed_while_a_step_lasts(self, desk: Desk) -> None:
        async with engine(desk.url, gated) as running:
            execution = await desk.start("gated")
            await begun()
            before = (await desk.execution(execution))["ready_at"]
            (held,) = running.leases._held.values()
            held.renewed_at -= 15
            await desk.soon("SELECT ready_at > $2 FROM fw_workflow_executions WHERE id = $1", execution, before)
            message = (
                "SELECT vt = ready_at FROM fw_workflow_executions JOIN pgmq.q_workflow_execution_queue USING (msg_id)"
            )
            assert await desk.value(message)
            gates["open"].set()
            await desk.until(execution, "completed")

    async def test_an_execution_that_kills_its_workers_is_not_run_a_fourth_time(self, desk: Desk) -> None:
        execution = None
        for number in range(3):
            async with engine(desk.url, poison, name=f"worker-{number}") as doomed:
                execution = execution or await desk.start("poison")
                await begun()
                gates["begun"].clear()
                await doomed.vanish()
            await desk.rows(EXPIRE)
        assert execution is not None
        async with engine(desk.url, poison):
            row = await desk.until(execution, "failed")
        assert effects == {"kills": 3}
        assert row["last_error"].startswith("STALLED: the worker that ran it vanished 3 times")
        assert await desk.value("SELECT count(*) FROM pgmq.q_workflow_dlq") == 1

    async def test_a_stop_gives_back_what_does_not_end_in_time(self, desk: Desk) -> None:
        async with engine(desk.url, gated) as stopped:
            execution = await desk.start("gated")
            await begun()
            await stopped.drain(0.1)
            row = await desk.execution(execution)
            assert (row["status"], row["crash_count"], stopped.executions.handed_back) == ("queued", 0, 1)
            await stopped.presence.write()
        assert not await desk.value("SELECT worker_running FROM fw_module_settings")

    async def test_a_stop_lets_a_step_end_and_begins_no_other(self, desk: Desk) -> None:
        async with engine(desk.url, gated) as stopped:
            execution = await desk.start("gated")
            await begun()
            draining = asyncio.create_task(stopped.drain(10))
            await asyncio.sleep(0.1)
            gates["open"].set()
            await draining
            assert (await desk.execution(execution))["status"] == "queued"
        assert effects == {"a": 1}
        async with engine(desk.url, gated):
            await desk.until(execution, "completed")
        assert effects == {"a": 1, "b": 1}

    async def test_two_workers_share_without_doing_anything_twice(self, desk: Desk) -> None:
        async with engine(desk.url, one_step), engine(desk.url, one_step, name="worker-2"):
            ids = [await desk.start("one") for _ in range(200)]
            for one in ids:
                await desk.until(one, "completed")
        assert effects == {"only": 200}


class TestSwitches:
    async def test_a_disabled_organisation_starts_nothing_and_keeps_its_messages(self, desk: Desk) -> None:
        async with engine(desk.url, one_step):
            await desk.rows("UPDATE fw_module_settings SET fw_execution_worker_enabled = false")
            execution = await desk.start("one")
            other = await started_elsewhere(desk)
            await desk.until(other, "completed")
            assert (await desk.execution(execution))["status"] == "queued"
            assert await desk.value("SELECT read_ct FROM pgmq.q_workflow_execution_queue") == 0
            await desk.enable()
            await desk.until(execution, "completed")

    @pytest.mark.parametrize(
        ("off", "on"),
        [
            ("UPDATE fw_module_settings SET fw_execution_worker_enabled = false", None),
            ("UPDATE fw_module_settings SET fw_worker_paused_at = now()", None),
            ("SELECT cron.unschedule('process-workflow-queue')", SCHEDULE),
            ("UPDATE cron.job SET active = false", "UPDATE cron.job SET active = true"),
        ],
    )
    async def test_what_is_running_stops_before_its_next_step(self, desk: Desk, off: str, on: str | None) -> None:
        async with engine(desk.url, gated):
            execution = await desk.start("gated")
            await begun()
            await desk.rows(off)
            gates["open"].set()
            await desk.until(execution, "queued")
            await asyncio.sleep(0.3)
            assert effects == {"a": 1}
            await desk.rows(on or "UPDATE fw_module_settings SET fw_worker_paused_at = NULL")
            await desk.enable()
            await desk.until(execution, "completed")
        assert effects == {"a": 1, "b": 1}

    async def test_nothing_starts_while_the_tick_is_not_scheduled(self, desk: Desk) -> None:
        async with engine(desk.url, one_step):
            await desk.rows("SELECT cron.unschedule('process-workflow-queue')")
            execution = await desk.start("one")
            await asyncio.sleep(0.5)
            assert (await desk.execution(execution))["status"] == "queued"
            await desk.rows(SCHEDULE)
            await desk.until(execution, "completed")

    async def test_a_reset_semaphore_takes_the_execution_from_its_worker(self, desk: Desk) -> None:
        async with engine(desk.url, gated) as stuck:
            execution = await desk.start("gated")
            await begun()
            await desk.soon("SELECT worker_running FROM fw_module_settings")
            stuck.claim_no_more()
            await desk.rows("UPDATE fw_module_settings SET worker_running = false WHERE worker_running = true")
            assert (await desk.execution(execution))["status"] == "queued"
            gates["open"].set()
            async with engine(desk.url, gated, name="worker-2"):
                await desk.until(execution, "completed")
        assert {step["worker"] for step in await desk.steps(execution)} == {"worker-2"}

    async def test_workers_themselves_reset_nothing(self, desk: Desk) -> None:
        async with engine(desk.url, gated) as running:
            execution = await desk.start("gated")
            await begun()
            await desk.soon("SELECT worker_running AND worker_last_batch_size = 1 FROM fw_module_settings")
            token = (await desk.execution(execution))["lease_token"]
            await running.presence.write()
            gates["open"].set()
            row = await desk.until(execution, "completed")
            await desk.soon("SELECT NOT worker_running FROM fw_module_settings")
        assert row["lease_token"] == token + 1


async def started_elsewhere(desk: Desk) -> Any:
    await desk.enable("other")
    return await desk.start("one", organisation="other")


class TestHands:
    async def test_the_guide_s_retry_opens_an_execution_again(self, desk: Desk) -> None:
        async with engine(desk.url, fails):
            execution = await desk.start("fails", {"failures": 7})
            await desk.until(execution, "failed")
            dead = await desk.value("SELECT msg_id FROM pgmq.q_workflow_dlq")
            await desk.rows(RETRY_OF_THE_GUIDE, dead)
            await desk.rows("SELECT pgmq.delete('workflow_dlq', $1::bigint)", dead)
            row = await desk.until(execution, "completed")
        assert effects == {"before": 1, "fail": 8}
        assert (row["round"], row["total_attempts"], row["retry_count"]) == (1, 8, 0)
        assert await desk.value("SELECT count(*) FROM pgmq.q_workflow_execution_queue") == 0

    async def test_the_rollback_s_update_ends_what_is_running(self, desk: Desk) -> None:
        async with engine(desk.url, gated):
            execution = await desk.start("gated")
            await begun()
            await desk.rows(
                "UPDATE fw_workflow_executions SET status = 'failed', last_error = 'Worker rollback'"
                " WHERE status IN ('queued', 'retry_pending', 'running')"
            )
            gates["open"].set()
            await asyncio.sleep(0.3)
            row = await desk.execution(execution)
        assert (row["status"], row["last_error"], row["completed_at"] is None) == ("failed", "Worker rollback", False)
        assert effects == {"a": 1}
        assert await desk.value("SELECT count(*) FROM pgmq.q_workflow_execution_queue") == 0

    async def test_cancelling_ends_a_waiting_one_at_once_and_a_running_one_at_its_next_step(self, desk: Desk) -> None:
        @workflow("sleeps")
        async def sleeps(ctx: WorkflowContext) -> None:
            await ctx.run("child", "gated")

        async with engine(desk.url, gated, sleeps):
            parent = await desk.start("sleeps")
            await begun()
            await desk.until(parent, "waiting")
            child = await desk.value("SELECT id FROM fw_workflow_executions WHERE parent_id = $1", parent)
            assert await desk.value("SELECT fw_workflow_cancel(ARRAY [$1::uuid], 'by a test')", parent) == 1
            row = await desk.execution(parent)
            assert (row["status"], row["last_error"]) == ("cancelled", "CANCELLED: by a test")
            gates["open"].set()
            await desk.until(child, "cancelled")
        assert effects == {"a": 1}
        assert await desk.value("SELECT count(*) FROM pgmq.q_workflow_execution_queue") == 0

    async def test_a_purged_queue_loses_nothing(self, desk: Desk) -> None:
        await desk.rows("INSERT INTO fw_workflow_code (workflow, version) VALUES ('one', 1)")
        await desk.rows("UPDATE fw_module_settings SET fw_execution_worker_enabled = false")
        ids = [await desk.start("one") for _ in range(3)]
        await desk.rows("SELECT pgmq.purge_queue('workflow_execution_queue')")
        async with engine(desk.url, one_step) as swept:
            await swept.upkeep.turn()
            assert await desk.value("SELECT count(*) FROM pgmq.q_workflow_execution_queue") == 3
            await desk.enable()
            for one in ids:
                await desk.until(one, "completed")
        assert effects == {"only": 3}

    async def test_what_a_purge_left_without_messages_runs_as_fast_as_ever(self, desk: Desk) -> None:
        await desk.rows("INSERT INTO fw_workflow_code (workflow, version) VALUES ('one', 1)")
        start = "SELECT fw_workflow_start('acme', 'one', jsonb_build_object('n', n)) FROM generate_series(1, 300) AS n"
        await desk.rows(start)
        await desk.rows("SELECT pgmq.purge_queue('workflow_execution_queue')")
        async with engine(desk.url, one_step, slots=10):
            # At one look a second, it would take half a minute.
            await desk.soon("SELECT bool_and(status = 'completed') FROM fw_workflow_executions", seconds=15)
        assert effects == {"only": 300}

    async def test_strange_messages_are_cleared_away_and_unknown_ones_kept(self, desk: Desk) -> None:
        async with engine(desk.url, one_step) as swept:
            execution = await desk.start("one")
            await desk.until(execution, "completed")
            send = "SELECT pgmq.send('workflow_execution_queue', $1::jsonb)"
            for message in (
                {"execution_id": str(execution), "attempt": 1},
                {"execution_id": "nonsense"},
                {"execution_id": str(execution), "organization_id": "somebody else's"},
                ["no", "object"],
            ):
                await desk.rows(send, json.dumps(message))
            await swept.upkeep.turn()
            assert await desk.value("SELECT count(*) FROM pgmq.q_workflow_execution_queue") == 4
            await desk.rows("UPDATE pgmq.q_workflow_execution_queue SET enqueued_at = now() - interval '2 minutes'")
            await swept.upkeep.turn()
        assert await desk.value("SELECT count(*) FROM pgmq.q_workflow_execution_queue") == 0
        dead = await desk.rows("SELECT message->>'error' AS error FROM pgmq.q_workflow_dlq")
        assert len(dead) == 3
        assert all(row["error"].startswith("UNKNOWN_EXECUTION") for row in dead)
        assert (await desk.execution(execution))["status"] == "completed"


class TestTurns:
    async def test_a_small_organisation_does_not_wait_behind_a_large_one(self, desk: Desk) -> None:
        @workflow("busy")
        async def busy(ctx: WorkflowContext) -> Any:
            async def rest(step: StepCall) -> None:
                await asyncio.sleep(0.01)

            return await ctx.step("only", rest)

        await desk.enable("small")
        async with engine(desk.url, busy, slots=4) as running:
            await desk.rows("SELECT fw_workflow_start($1, 'busy', '{}') FROM generate_series(1, 20000)", ORGANISATION)
            await asyncio.sleep(0.5)
            began = time.monotonic()
            small = await desk.start("busy", organisation="small")
            await desk.until(small, "completed")
            took = time.monotonic() - began
            await running.drain(0.5)
        assert took < 2.0

    async def test_a_slot_is_kept_for_organisations_that_have_none(self, desk: Desk) -> None:
        await desk.enable("small")
        async with engine(desk.url, gated, one_step, slots=2):
            for _ in range(5):
                await desk.start("gated")
            await begun()
            await desk.until(await desk.start("one", organisation="small"), "completed")
            assert effects["a"] == 2
            gates["open"].set()
            await desk.soon("SELECT count(*) = 6 FROM fw_workflow_executions WHERE status = 'completed'")

    async def test_that_slot_is_found_behind_many_that_have_theirs(self, desk: Desk) -> None:
        large = [f"large-{number}" for number in range(6)]
        await desk.enable("large-0-small", *large)
        async with engine(desk.url, gated, one_step, slots=10, run=False) as running:
            for organisation in large:
                await desk.rows("SELECT fw_workflow_start($1, 'gated', '{}') FROM generate_series(1, 20)", organisation)
            running.run()
            await begun()
            await desk.soon("SELECT count(*) = 10 FROM fw_workflow_executions WHERE status = 'running'")
            for _ in range(3):
                await desk.until(await desk.start("one", organisation="large-0-small"), "completed", seconds=5)
            assert effects["a"] == 10

    async def test_no_organisation_has_more_at_work_than_it_may(self, desk: Desk) -> None:
        await desk.rows("UPDATE fw_module_settings SET fw_worker_max_concurrency = 2")
        async with engine(desk.url, gated), engine(desk.url, gated, name="worker-2"):
            for _ in range(6):
                await desk.start("gated")
            await begun()
            await asyncio.sleep(0.3)
            assert effects == {"a": 2}
            gates["open"].set()
            await desk.soon("SELECT count(*) = 6 FROM fw_workflow_executions WHERE status = 'completed'")

    async def test_fifty_organisations_are_served_in_turns(self, desk: Desk) -> None:
        names = [f"org-{number:02}" for number in range(50)]
        await desk.enable(*names)
        async with engine(desk.url, one_step, slots=5, run=False) as running:
            for name in names:
                await desk.rows("SELECT fw_workflow_start($1, 'one', '{}') FROM generate_series(1, 20)", name)
            running.run()
            await desk.soon("SELECT count(*) = 1000 FROM fw_workflow_executions WHERE status = 'completed'", seconds=60)
        order = await desk.rows("SELECT organization_id FROM fw_workflow_executions ORDER BY started_at, lease_token")
        first = Counter(row["organization_id"] for row in order[:500])
        assert len(first) == 50
        assert max(first.values()) - min(first.values()) <= 4


async def test_of_those_whose_worker_vanished_twice_a_worker_has_one_at_a_time(desk: Desk) -> None:
    """Whichever of them it was that took it away, the others are not there the third time."""

    @workflow("waits")
    async def waits(ctx: WorkflowContext) -> None:
        await ctx.step("wait", lambda _: asyncio.Event().wait())

    async with engine(desk.url, waits, run=False) as worker:
        suspects = {await desk.start("waits") for _ in range(3)}
        await desk.rows(
            "UPDATE fw_workflow_executions"
            "   SET status = 'running', lease_token = 7, crash_count = 1, lease_owner = 'gone'"
        )
        fresh = await desk.start("waits")
        first = {one.id for one in (await worker.claims.claim(10, 10, (), "")).executions}
        assert len(first & suspects) == 1
        assert first - suspects == {fresh}
        aside = await desk.rows("SELECT * FROM fw_workflow_executions WHERE id = ANY ($1)", suspects - first)
        assert {(row["status"], row["crash_count"], row["lease_owner"]) for row in aside} == {("queued", 2, None)}
        late = await desk.start("waits")
        await desk.soon("SELECT count(*) = 3 FROM fw_workflow_executions WHERE ready_at <= now()")
        # It has one: the others are passed over without being in anybody's way.
        claims = await worker.claims.claim(10, 10, (), "", suspect=False)
        assert [one.id for one in claims.executions] == [late]
        await desk.soon("SELECT count(*) = 2 FROM fw_workflow_executions WHERE ready_at <= now()")
        (second,) = (await worker.claims.claim(10, 10, (), "")).executions
        assert second.id in suspects - first
        assert second.is_suspect
