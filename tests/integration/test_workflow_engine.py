"""Executions through the engine's own loops, on a real PostgreSQL: what runs, how often, and what is left of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from worker_runtime.outcome import PermanentError
from workflow_harness import ORGANISATION, Desk, engine
from workflow_worker.context import EffectUnavailable, StepFailed
from workflow_worker.execution import StepRetry
from workflow_worker.registry import workflow

if TYPE_CHECKING:
    from workflow_worker.context import StepCall, WorkflowContext

AT_ONCE = StepRetry(5, (0.0,))
MESSAGES = "SELECT count(*) FROM pgmq.q_workflow_execution_queue"
DEAD = "SELECT message FROM pgmq.q_workflow_dlq ORDER BY msg_id"
pytestmark = pytest.mark.usefixtures("effects")
effects_of_test: Counter[str] = Counter()


@pytest.fixture
def effects() -> Counter[str]:
    effects_of_test.clear()
    return effects_of_test


@pytest.fixture
async def desk(database_url: str) -> Desk:
    desk = Desk(database_url)
    await desk.enable()
    return desk


async def act(step: StepCall) -> dict[str, str]:
    effects_of_test[step.step] += 1
    return {"did": step.step}


@workflow("three")
async def three(ctx: WorkflowContext) -> list[Any]:
    return [await ctx.step(name, act) for name in ("a", "b", "c")]


@workflow("twice")
async def twice(ctx: WorkflowContext) -> list[Any]:
    return [await ctx.step("a", act), await ctx.step("a", act)]


@workflow("flaky")
async def flaky(ctx: WorkflowContext) -> Any:
    async def fails(step: StepCall) -> Any:
        done = await act(step)
        if step.attempt <= ctx.input["failures"]:
            raise ConnectionResetError("somebody@example.com hung up")
        return done

    await ctx.step("first", act)
    return await ctx.step("flaky", fails, retry=AT_ONCE)


class TestSteps:
    async def test_run_once_each_and_in_order(self, desk: Desk, effects: Counter[str]) -> None:
        async with engine(desk.url, three):
            execution = await desk.start("three")
            row = await desk.until(execution, "completed")
        assert json.loads(row["result"]) == [{"did": "a"}, {"did": "b"}, {"did": "c"}]
        assert effects == {"a": 1, "b": 1, "c": 1}
        assert (row["total_attempts"], row["retry_count"], row["last_error"]) == (1, 0, None)
        assert await desk.value(MESSAGES) == 0
        assert await desk.value("SELECT count(*) FROM pgmq.a_workflow_execution_queue") == 1

    async def test_of_the_same_name_are_told_apart(self, desk: Desk) -> None:
        async with engine(desk.url, twice):
            row = await desk.until(await desk.start("twice"), "completed")
        assert json.loads(row["result"]) == [{"did": "a"}, {"did": "a#2"}]

    async def test_that_fail_are_tried_again_and_the_others_are_not(self, desk: Desk, effects: Counter[str]) -> None:
        async with engine(desk.url, flaky):
            row = await desk.until(await desk.start("flaky", {"failures": 3}), "completed")
        assert effects == {"first": 1, "flaky": 4}
        assert (row["total_attempts"], row["retry_count"]) == (4, 0)
        steps = await desk.steps(row["id"])
        assert [(one["step"], one["attempt"], one["status"]) for one in steps] == [
            ("first", 1, "completed"),
            ("flaky", 1, "failed"),
            ("flaky", 2, "failed"),
            ("flaky", 3, "failed"),
            ("flaky", 4, "completed"),
        ]
        assert "example.com" not in str([dict(one) for one in steps])

    async def test_that_fail_five_times_are_a_dead_letter(self, desk: Desk, effects: Counter[str]) -> None:
        async with engine(desk.url, flaky):
            row = await desk.until(await desk.start("flaky", {"failures": 9}), "failed")
        assert effects == {"first": 1, "flaky": 5}
        assert (row["total_attempts"], row["retry_count"]) == (5, 5)
        dead = json.loads(await desk.value(DEAD))
        assert dead["execution_id"] == str(row["id"])
        assert dead["organization_id"] == ORGANISATION
        assert (dead["attempt"], dead["total_attempts"]) == (5, 5)
        assert dead["error"] == row["last_error"] == "STEP_FAILED: step flaky: ConnectionResetError"
        assert dead["failed_at"]
        assert await desk.value(MESSAGES) == 0

    async def test_a_permanent_error_is_not_tried_again(self, desk: Desk, effects: Counter[str]) -> None:
        @workflow("refused")
        async def refused(ctx: WorkflowContext) -> None:
            async def refuse(step: StepCall) -> None:
                await act(step)
                raise PermanentError("NO_SUCH_LEAD", "there is none")

            await ctx.step("refuse", refuse)

        async with engine(desk.url, refused):
            row = await desk.until(await desk.start("refused"), "failed")
        assert effects == {"refuse": 1}
        assert row["last_error"] == "NO_SUCH_LEAD: step refuse: there is none"

    async def test_an_outage_costs_no_attempt(self, desk: Desk) -> None:
        @workflow("patient")
        async def patient(ctx: WorkflowContext) -> Any:
            async def wait(step: StepCall) -> Any:
                await act(step)
                if effects_of_test["send"] < 8:
                    raise EffectUnavailable("Redis did not answer", 0.01)
                return step.attempt

            return await ctx.step("send", wait)

        async with engine(desk.url, patient):
            row = await desk.until(await desk.start("patient"), "completed")
        assert (row["result"], row["total_attempts"]) == ("1", 1)

    async def test_a_failure_can_be_caught_and_made_good(self, desk: Desk, effects: Counter[str]) -> None:
        @workflow("saga")
        async def saga(ctx: WorkflowContext) -> Any:
            async def fail(step: StepCall) -> None:
                await act(step)
                raise OSError

            await ctx.step("book", act)
            try:
                await ctx.step("pay", fail, retry=StepRetry(2, (0.0,)))
            except StepFailed as failure:
                await ctx.step("unbook", act)
                return failure.error

        async with engine(desk.url, saga):
            row = await desk.until(await desk.start("saga"), "completed")
        assert json.loads(row["result"]) == "STEP_FAILED: OSError"
        assert effects == {"book": 1, "pay": 2, "unbook": 1}

    async def test_a_time_limit_counts_as_a_failure(self, desk: Desk, effects: Counter[str]) -> None:
        @workflow("hangs")
        async def hangs(ctx: WorkflowContext) -> Any:
            async def hang(step: StepCall) -> None:
                await act(step)
                await asyncio.Event().wait()

            await ctx.step("hang", hang, timeout_seconds=0.05, retry=StepRetry(2, (0.0,)))

        async with engine(desk.url, hangs):
            row = await desk.until(await desk.start("hangs"), "failed")
        assert row["last_error"] == "TIME_LIMIT: step hang: it took longer than 0.05 s"
        assert effects == {"hang": 2}

    @pytest.mark.parametrize(
        ("result", "code"),
        [(object(), "RESULT_NOT_JSON"), (float("nan"), "RESULT_NOT_JSON"), ("x" * 300_000, "RESULT_TOO_LARGE")],
    )
    async def test_a_result_that_cannot_be_kept_is_refused(self, desk: Desk, result: Any, code: str) -> None:
        @workflow("odd")
        async def odd(ctx: WorkflowContext) -> Any:
            async def give(_: StepCall) -> Any:
                return result

            return await ctx.step("give", give)

        async with engine(desk.url, odd):
            row = await desk.until(await desk.start("odd"), "failed")
        assert code in row["last_error"]

    async def test_what_postgres_cannot_hold_is_kept_as_an_escape_and_hurts_no_neighbour(self, desk: Desk) -> None:
        @workflow("nul")
        async def nul(ctx: WorkflowContext) -> Any:
            async def give(_: StepCall) -> Any:
                return {"a\0": "b\0", "c": "\ud800"}

            return await ctx.step("give", give)

        async with engine(desk.url, nul, three):
            ids = [await desk.start(name) for name in ("nul", "three", "nul", "three")]
            rows = [await desk.until(one, "completed") for one in ids]
        assert json.loads(rows[0]["result"]) == {"a\\x00": "b\\x00", "c": "\\ud800"}


class TestOwnCode:
    async def test_that_raises_is_tried_five_times(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("workflow_worker.turn.StepRetry", lambda: AT_ONCE)

        @workflow("buggy")
        async def buggy(ctx: WorkflowContext) -> None:
            await ctx.step("a", act)
            raise KeyError("x")

        async with engine(desk.url, buggy):
            row = await desk.until(await desk.start("buggy"), "failed")
        assert (row["total_attempts"], row["last_error"]) == (5, "WORKFLOW_FAILED: KeyError")
        assert effects_of_test == {"a": 1}

    async def test_that_is_not_here_waits_for_a_worker_that_has_it(self, desk: Desk) -> None:
        await desk.rows("INSERT INTO fw_workflow_code (workflow, version) VALUES ('elsewhere', 3)")
        async with engine(desk.url, three):
            execution = await desk.start("elsewhere")
            await desk.soon("SELECT last_error IS NOT NULL FROM fw_workflow_executions WHERE id = $1", execution)
            row = await desk.execution(execution)
        assert (row["status"], row["total_attempts"]) == ("queued", 0)
        assert row["last_error"] == "no worker here has elsewhere version 3"

    async def test_an_execution_stays_with_its_version(self, desk: Desk) -> None:
        @workflow("grows", version=1)
        async def old(_: WorkflowContext) -> str:
            return "old"

        @workflow("grows", version=2)
        async def new(_: WorkflowContext) -> str:
            return "new"

        async with engine(desk.url, old, run=False):
            first = await desk.start("grows")
        async with engine(desk.url, old, new):
            second = await desk.start("grows")
            rows = [await desk.until(one, "completed") for one in (first, second)]
        assert [json.loads(row["result"]) for row in rows] == ["old", "new"]


class TestStart:
    async def test_the_same_key_starts_once(self, desk: Desk) -> None:
        async with engine(desk.url, three, twice):
            first, second = await desk.start("three", key="k"), await desk.start("three", key="k")
            other = await desk.start("twice", key="k")
            await desk.until(first, "completed")
            await desk.until(other, "completed")
        assert first == second != other
        assert await desk.value("SELECT count(*) FROM fw_workflow_executions") == 2

    async def test_a_name_that_is_none_is_refused(self, desk: Desk) -> None:
        with pytest.raises(Exception, match="organisation acme has no active workflow nobody"):
            await desk.start("nobody")


class TestWaiting:
    async def test_a_sleep_holds_no_slot(self, desk: Desk) -> None:
        @workflow("naps")
        async def naps(ctx: WorkflowContext) -> None:
            await ctx.sleep("nap", seconds=ctx.input["seconds"])

        async with engine(desk.url, naps, slots=1):
            long = [await desk.start("naps", {"seconds": 3600}) for _ in range(5)]
            short = await desk.start("naps", {"seconds": 0.2})
            await desk.until(short, "completed")
            rows = [await desk.execution(one) for one in long]
        assert {row["status"] for row in rows} == {"waiting"}
        vt = await desk.value("SELECT min(vt) > now() + interval '59 minutes' FROM pgmq.q_workflow_execution_queue")
        assert vt

    async def test_an_event_goes_on_with_its_payload(self, desk: Desk) -> None:
        async with engine(desk.url, waits):
            execution = await desk.start("waits", {"order": "7"})
            await desk.until(execution, "waiting")
            assert await desk.signal("paid", "8", {"no": 1}) == 0
            assert await desk.signal("paid", "7", {"no": 2}, organisation="other") == 0
            assert await desk.signal("paid", "7", {"no": 3}) == 1
            row = await desk.until(execution, "completed")
        assert json.loads(row["result"]) == [{"payload": {"no": 3}}]

    async def test_an_event_that_came_early_is_not_lost_and_serves_one_wait(self, desk: Desk) -> None:
        async with engine(desk.url, waits, run=False) as one:
            execution = await desk.start("waits", {"order": "7", "times": 2})
            await desk.signal("paid", "7", "first")
            one.run()
            await desk.until(execution, "waiting")
            await desk.signal("paid", "7", "second")
            row = await desk.until(execution, "completed")
        assert json.loads(row["result"]) == [{"payload": "first"}, {"payload": "second"}]

    async def test_events_and_waits_that_race_all_meet(self, desk: Desk) -> None:
        async with engine(desk.url, waits, slots=20):
            ids = [await desk.start("waits", {"order": str(number)}) for number in range(40)]
            await asyncio.gather(*(desk.signal("paid", str(number), number) for number in range(40)))
            rows = [await desk.until(one, "completed") for one in ids]
        assert [json.loads(row["result"]) for row in rows] == [[{"payload": number}] for number in range(40)]

    async def test_a_time_out_ends_the_wait(self, desk: Desk) -> None:
        async with engine(desk.url, waits):
            row = await desk.until(await desk.start("waits", {"order": "7", "seconds": 0.2}), "completed")
        assert json.loads(row["result"]) == [None]


@workflow("waits")
async def waits(ctx: WorkflowContext) -> list[Any]:
    async def once() -> Any:
        return await ctx.wait_event("paid", "paid", ctx.input["order"], timeout_seconds=ctx.input.get("seconds", 60))

    return [await once() for _ in range(ctx.input.get("times", 1))]


class TestParallel:
    async def test_branches_go_on_by_themselves(self, desk: Desk, effects: Counter[str]) -> None:
        @workflow("fork")
        async def fork(ctx: WorkflowContext) -> list[Any]:
            async def branch(name: str, seconds: float) -> str:
                await ctx.step(f"{name}1", act)
                await ctx.sleep(f"{name} rests", seconds=seconds)
                await ctx.step(f"{name}2", act)
                return name

            return await ctx.parallel(branch("x", 0.1), branch("y", 0.4))

        async with engine(desk.url, fork):
            row = await desk.until(await desk.start("fork"), "completed")
        assert json.loads(row["result"]) == ["x", "y"]
        assert effects == {"x1": 1, "x2": 1, "y1": 1, "y2": 1}

    async def test_a_failing_branch_does_not_undo_the_others(self, desk: Desk, effects: Counter[str]) -> None:
        @workflow("half")
        async def half(ctx: WorkflowContext) -> None:
            async def fail(step: StepCall) -> None:
                await act(step)
                raise OSError

            async def failing() -> None:
                await ctx.step("bad", fail, retry=StepRetry(3, (0.0,)))

            async def fine() -> None:
                await ctx.step("good", act)
                await ctx.sleep("long", seconds=3600)

            await ctx.parallel(failing(), fine())

        async with engine(desk.url, half):
            row = await desk.until(await desk.start("half"), "failed")
        assert effects == {"bad": 3, "good": 1}
        assert row["last_error"] == "STEP_FAILED: step bad: OSError"


class TestChildren:
    async def test_a_parent_waits_for_its_child(self, desk: Desk, effects: Counter[str]) -> None:
        async with engine(desk.url, parent, three):
            row = await desk.until(await desk.start("parent", {"child": "three"}), "completed")
        assert json.loads(row["result"]) == [{"did": "a"}, {"did": "b"}, {"did": "c"}]
        assert effects == {"a": 1, "b": 1, "c": 1}
        assert await desk.value("SELECT count(*) FROM fw_workflow_executions WHERE parent_id = $1", row["id"]) == 1

    async def test_a_child_that_fails_fails_its_parent(self, desk: Desk) -> None:
        async with engine(desk.url, parent, flaky):
            given = {"child": "flaky", "given": {"failures": 9}}
            row = await desk.until(await desk.start("parent", given), "failed")
        assert row["last_error"].startswith("CHILD_FAILED: step child: STEP_FAILED: step flaky: ")

    async def test_a_name_that_is_none_fails_at_once(self, desk: Desk) -> None:
        async with engine(desk.url, parent):
            row = await desk.until(await desk.start("parent", {"child": "nobody"}), "failed")
        assert "UNKNOWN_WORKFLOW" in row["last_error"]

    async def test_workflows_that_start_each_other_for_ever_end(self, desk: Desk) -> None:
        async with engine(desk.url, parent):
            given: dict[str, Any] = {"child": "parent"}
            given["given"] = given_deep(20)
            row = await desk.until(await desk.start("parent", given), "failed")
        assert "TOO_DEEP" in row["last_error"]
        assert await desk.value("SELECT max(depth) FROM fw_workflow_executions") == 10


def given_deep(levels: int) -> dict[str, Any]:
    return {"child": "parent", "given": given_deep(levels - 1)} if levels else {"child": "three"}


@workflow("parent")
async def parent(ctx: WorkflowContext) -> Any:
    return await ctx.run("child", ctx.input["child"], ctx.input.get("given", {}))


WELL_ASLEEP = """
SELECT ready_at > clock_timestamp() + interval '50 minutes' FROM fw_workflow_executions WHERE id = $1
"""
RESTS = """
SELECT status = 'waiting' AND EXISTS (SELECT FROM fw_workflow_steps WHERE execution_id = $1 AND step = 'rest')
  FROM fw_workflow_executions WHERE id = $1
"""


@workflow("met-then-rests")
async def met_then_rests(ctx: WorkflowContext) -> None:
    await ctx.wait_event("paid", "invoice.paid", "o-1", timeout_seconds=ctx.input.get("seconds"))
    await ctx.sleep("rest", seconds=3600)


@workflow("waits-for-go")
async def waits_for_go(ctx: WorkflowContext) -> None:
    await ctx.wait_event("go", "go", "")


@workflow("two-branches")
async def two_branches(ctx: WorkflowContext) -> None:
    async def fails_once(step: StepCall) -> None:
        await act(step)
        if effects_of_test[step.step] == 1:
            raise PermanentError("NOT_YET", "again")

    await ctx.parallel(ctx.run("child", "waits-for-go"), ctx.step("moody", fails_once))
    await ctx.sleep("rest", seconds=3600)


class TestRest:
    """An execution that waits is not woken by what it has had already: it would be run without end."""

    async def test_after_an_event_that_came(self, desk: Desk) -> None:
        async with engine(desk.url, met_then_rests):
            execution = await desk.start("met-then-rests")
            await desk.until(execution, "waiting")
            assert await desk.signal("invoice.paid", "o-1") == 1
            await desk.soon(RESTS, execution)
            assert await desk.value(WELL_ASLEEP, execution) is True
            # Nor by another of its kind.
            assert await desk.signal("invoice.paid", "o-1") == 0
            assert await desk.value(WELL_ASLEEP, execution) is True

    async def test_after_an_event_that_did_not_come_in_time(self, desk: Desk) -> None:
        async with engine(desk.url, met_then_rests):
            execution = await desk.start("met-then-rests", {"seconds": 0.05})
            await desk.soon(RESTS, execution)
            assert await desk.signal("invoice.paid", "o-1") == 0
            assert await desk.value(WELL_ASLEEP, execution) is True

    async def test_after_a_child_that_was_begun_before_it_was_opened_again(self, desk: Desk) -> None:
        async with engine(desk.url, two_branches, waits_for_go):
            execution = await desk.start("two-branches")
            await desk.until(execution, "failed")
            await desk.rows("UPDATE fw_workflow_executions SET status = 'queued' WHERE id = $1", execution)
            await desk.until(execution, "waiting")
            await desk.soon("SELECT count(*) = 1 FROM fw_workflow_waits")
            assert await desk.signal("go", "") == 1
            await desk.soon(RESTS, execution)
            assert await desk.value(WELL_ASLEEP, execution) is True


async def test_a_wait_that_is_over_when_it_begins_is_written_down_once(desk: Desk) -> None:
    @workflow("hasty")
    async def hasty(ctx: WorkflowContext) -> str:
        await ctx.sleep("no time", seconds=0)
        return "awake"

    async with engine(desk.url, hasty):
        row = await desk.until(await desk.start("hasty"), "completed")
    assert json.loads(row["result"]) == "awake"
    (step,) = await desk.steps(row["id"])
    assert (step["step"], step["status"]) == ("no time", "completed")
