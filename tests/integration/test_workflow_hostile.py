"""Input that is meant to do harm: it fails itself, and nobody beside it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4, uuid5

import asyncpg
import pytest

from workflow_harness import Desk, engine
from workflow_worker.context import StepCall
from workflow_worker.execution import StepRetry
from workflow_worker.registry import workflow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from workflow_worker.context import WorkflowContext

START = "SELECT fw_workflow_start($1, $2, $3::jsonb)"
SIGNAL = "SELECT fw_workflow_signal($1, $2, $3, $4::jsonb)"
DEEP = "[" * 3_000 + "]" * 3_000
DIGITS = "9" * 5_000


@pytest.fixture
async def desk(database_url: str) -> Desk:
    desk = Desk(database_url)
    await desk.enable()
    await desk.enable("neighbour")
    return desk


async def act(step: StepCall) -> str:
    return step.step


@workflow("one")
async def one(ctx: WorkflowContext) -> Any:
    return await ctx.step("a", act)


@workflow("told")
async def told(ctx: WorkflowContext) -> Any:
    return await ctx.wait_event("reply", "replied", "c")


@pytest.mark.parametrize("hostile", [DEEP, "[" * 950 + "]" * 950, DIGITS])
async def test_an_input_that_cannot_be_read_fails_itself_and_nobody_beside_it(desk: Desk, hostile: str) -> None:
    async with engine(desk.url, one):
        bad = await desk.value(START, "acme", "one", f'{{"x": {hostile}}}')
        good = await desk.start("one", organisation="neighbour")
        assert (await desk.until(bad, "failed"))["last_error"].startswith("UNREADABLE: its input")
        await desk.until(good, "completed")


@pytest.mark.parametrize("hostile", [DEEP, "[" * 950 + "]" * 950, DIGITS, "1" + "0" * 400 + ".5"])
async def test_a_signal_that_cannot_be_read_fails_who_waits_for_it(desk: Desk, hostile: str) -> None:
    async with engine(desk.url, one, told):
        bad = await desk.start("told")
        await desk.until(bad, "waiting")
        await desk.value(SIGNAL, "acme", "replied", "c", hostile)
        good = await desk.start("one", organisation="neighbour")
        assert "UNREADABLE: the signal of step reply" in (await desk.until(bad, "failed"))["last_error"]
        await desk.until(good, "completed")


class Odd(BaseException):
    pass


async def leaves(_: StepCall) -> Any:
    sys.exit(3)


async def interrupts(_: StepCall) -> Any:
    raise KeyboardInterrupt


async def cancels_itself(_: StepCall) -> Any:
    raise asyncio.CancelledError


async def is_odd(_: StepCall) -> Any:
    raise Odd


async def recurses(step: StepCall) -> Any:
    return await recurses(step)


async def generates(_: StepCall) -> Any:
    return (number for number in range(3))


async def nests(_: StepCall) -> Any:
    return json.loads("[" * 400 + "]" * 400)


async def returns_nul(_: StepCall) -> Any:
    return {"\0": "\ud800"}


HARMFUL = {
    "SystemExit": leaves,
    "KeyboardInterrupt": interrupts,
    "CancelledError": cancels_itself,
    "Odd": is_odd,
    "RecursionError": recurses,
    "RESULT_NOT_JSON: generator": generates,
    "RESULT_NOT_JSON: it is nested deeper than 200": nests,
}


@workflow("harmful")
async def harmful(ctx: WorkflowContext) -> Any:
    does = HARMFUL[ctx.input["harm"]]
    if ctx.input.get("bare"):
        return await does(StepCall(ctx.execution_id, ctx.organization_id, "bare", 1))
    return await ctx.step("a", does, retry=StepRetry(2, (0.0,)))


@pytest.mark.parametrize("harm", HARMFUL)
async def test_code_that_means_to_take_the_worker_with_it_has_only_failed(desk: Desk, harm: str) -> None:
    async with engine(desk.url, one, harmful):
        bad = await desk.start("harmful", {"harm": harm})
        failed = await desk.until(bad, "failed")
        await desk.until(await desk.start("one", organisation="neighbour"), "completed")
    code, _, what = harm.rpartition(": ")
    assert failed["last_error"].startswith(f"{code or 'STEP_FAILED'}: step a: {what}")
    assert (failed["crash_count"], failed["total_attempts"]) == (0, 1 if ":" in harm else 2)


@pytest.mark.parametrize("harm", ["SystemExit", "KeyboardInterrupt", "CancelledError", "Odd", "RecursionError"])
async def test_so_has_a_workflow_s_own_code(desk: Desk, harm: str) -> None:
    async with engine(desk.url, one, harmful):
        bad = await desk.start("harmful", {"harm": harm, "bare": True})
        failed = await desk.until(bad, "retry_pending")
        await desk.until(await desk.start("one", organisation="neighbour"), "completed")
    assert failed["last_error"] == f"WORKFLOW_FAILED: {harm}"


async def test_keys_and_texts_that_postgres_cannot_hold_are_kept_as_escapes(desk: Desk) -> None:
    @workflow("nul")
    async def nul(ctx: WorkflowContext) -> Any:
        return await ctx.step("a", returns_nul)

    async with engine(desk.url, nul):
        row = await desk.until(await desk.start("nul"), "completed")
    assert json.loads(row["result"]) == {"\\x00": "\\ud800"}


class TestAnotherOrganisation:
    """What the functions that any program may call do for one organisation is of no concern to another."""

    @pytest.fixture
    async def theirs(self, desk: Desk) -> Any:
        async with engine(desk.url, one, told):
            yield await desk.start("told", organisation="neighbour", key="k")

    async def test_its_execution_is_not_handed_out_by_its_id(self, desk: Desk, theirs: Any) -> None:
        with pytest.raises(asyncpg.UniqueViolationError, match="is another organisation's"):
            await desk.value("SELECT fw_workflow_start('acme', 'one', '{}', NULL, $1)", theirs)

    async def test_its_execution_is_nobody_s_parent(self, desk: Desk, theirs: Any) -> None:
        with pytest.raises(asyncpg.ForeignKeyViolationError, match="acme has no execution"):
            await desk.value("SELECT fw_workflow_start('acme', 'one', parent => $1, step_of_parent => 'a')", theirs)

    async def test_its_keys_and_correlations_are_its_own(self, desk: Desk, theirs: Any) -> None:
        assert await desk.start("told", key="k") != theirs
        await desk.until(theirs, "waiting")
        assert await desk.value("SELECT fw_workflow_signal('acme', 'replied', 'c', '1', 'x')") <= 1
        assert await desk.value("SELECT fw_workflow_signal('neighbour', 'replied', 'c', '2', 'x')") == 1
        row = await desk.until(theirs, "completed")
        assert json.loads(row["result"])["payload"] == 2

    async def test_who_takes_a_child_s_id_in_advance_gets_nothing_of_it(self, desk: Desk) -> None:
        @workflow("parent")
        async def parent(ctx: WorkflowContext) -> Any:
            return await ctx.run("child", "one")

        async with engine(desk.url, one, parent):
            name = uuid4()
            await desk.value("SELECT fw_workflow_start('acme', 'one', '{}', NULL, $1)", uuid5(name, "child/0"))
            await desk.value("SELECT fw_workflow_start('neighbour', 'parent', '{}', NULL, $1)", name)
            failed = await desk.until(name, "failed")
        assert failed["last_error"] == "NOT_STARTED: PostgreSQL refused it: UniqueViolationError"


LARGE = json.dumps("".join(str(uuid4()) for _ in range(150_000)))


@pytest.mark.parametrize(
    ("statement", "arguments", "error"),
    [
        ("fw_workflow_start(NULL, 'one')", [], asyncpg.NotNullViolationError),
        ("fw_workflow_start('acme', NULL)", [], asyncpg.NoDataFoundError),
        ("fw_workflow_start('acme', '')", [], asyncpg.NoDataFoundError),
        ("fw_workflow_start('acme', 'one', $1::jsonb)", [LARGE], asyncpg.CheckViolationError),
        ("fw_workflow_start('acme', 'one', '{}', $1)", [LARGE], asyncpg.ProgramLimitExceededError),
        ("fw_workflow_start('acme', 'one', parent => $1)", [UUID(int=1)], asyncpg.ForeignKeyViolationError),
        ("fw_workflow_signal(NULL, 'e', 'c')", [], asyncpg.NotNullViolationError),
        ("fw_workflow_signal('acme', NULL, 'c')", [], asyncpg.NotNullViolationError),
        ("fw_workflow_signal('acme', 'e', NULL)", [], asyncpg.NotNullViolationError),
        ("fw_workflow_signal('acme', 'e', 'c', $1::jsonb)", [LARGE], asyncpg.CheckViolationError),
        ("fw_workflow_signal('acme', 'e', $1)", [LARGE], asyncpg.ProgramLimitExceededError),
        ("util.invoke_edge_function(NULL)", [], asyncpg.RaiseError),
        ("util.invoke_edge_function('rm')", [], asyncpg.RaiseError),
    ],
)
async def test_what_cannot_be_is_refused_at_once(desk: Desk, statement: str, arguments: Any, error: Any) -> None:
    await desk.rows("INSERT INTO fw_workflow_code (workflow, version) VALUES ('one', 1)")
    with pytest.raises(error):
        await desk.value(f"SELECT {statement}", *arguments)
    assert await desk.value("SELECT count(*) FROM fw_workflow_executions") == 0


GRANTS = Path(__file__).parents[2] / "docs" / "how-to" / "examples" / "grant-workflows.sql"


@pytest.fixture
async def application(desk: Desk) -> AsyncIterator[asyncpg.Connection]:
    """A login with the rights that the page names, and no others."""
    role = f"few_{uuid4().hex}"
    async with desk.connected() as owner:
        await owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        try:
            await owner.execute(GRANTS.read_text().replace("the_application", role))
            connection = await asyncpg.connect(desk.url, user=role, password="secret")
            yield connection
            await connection.close()
        finally:
            await owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


REOPEN = """
INSERT INTO pgmq.q_workflow_execution_queue (vt, message)
SELECT now(), jsonb_build_object('execution_id', id) FROM fw_workflow_executions
"""


class TestFewRights:
    async def test_are_enough_to_start_and_to_signal(self, desk: Desk, application: asyncpg.Connection) -> None:
        async with engine(desk.url, told):
            started = await application.fetchval("SELECT fw_workflow_start('acme', 'told', '{}', 'k')")
            assert await application.fetchval("SELECT fw_workflow_start('acme', 'told', '{}', 'k')") == started
            await desk.until(started, "waiting")
            assert await application.fetchval("SELECT fw_workflow_signal('acme', 'replied', 'c', '5', 's')") == 1
            assert json.loads((await desk.until(started, "completed"))["result"])["payload"] == 5

    @pytest.mark.parametrize(
        "statement",
        [
            "SELECT output FROM fw_workflow_steps",
            "SELECT payload FROM fw_workflow_signals",
            "UPDATE fw_workflow_executions SET status = 'cancelled'",
            "SELECT fw_workflow_cancel(ARRAY [gen_random_uuid()], 'x')",
            "SELECT fw_workflow_archive(ARRAY [1])",
            "SELECT cron.schedule('x', '* * * * *', 'SELECT 1')",
            "INSERT INTO cron.job (schedule, command) VALUES ('* * * * *', 'DROP TABLE fw_workflow_rules')",
            "UPDATE fw_module_settings SET worker_running = false",
            "INSERT INTO pgmq.a_workflow_execution_queue (msg_id, vt) VALUES (1, now())",
            REOPEN,
        ],
    )
    async def test_are_not_enough_for_more(self, application: asyncpg.Connection, desk: Desk, statement: str) -> None:
        await desk.rows("INSERT INTO fw_workflow_executions (organization_id, workflow) VALUES ('acme', 'one')")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.execute(statement)

    async def test_hide_nothing_from_a_worker_by_a_temporary_table(
        self, application: asyncpg.Connection, desk: Desk
    ) -> None:
        await desk.rows("SELECT cron.unschedule('process-workflow-queue')")
        await application.execute(
            "CREATE TEMPORARY TABLE job AS SELECT 'process-workflow-queue' AS jobname, true AS active"
        )
        await application.execute("SET search_path = pg_temp, public")
        assert await application.fetchval("SELECT fw_workflows_scheduled()") is False


async def waiting_for(desk: Desk, correlation: str, given: Any = None) -> Any:
    document = {"name": "w", "steps": [{"id": "a", "wait_for_event": {"event": "e", "correlation": correlation}}]}
    rule = await desk.value("INSERT INTO fw_workflow_rules (organization_id, name) VALUES ('acme', 'w') RETURNING id")
    await desk.rows("INSERT INTO fw_workflow_definitions VALUES ($1, 1, $2)", rule, json.dumps(document))
    return await desk.start("w", given)


@pytest.mark.parametrize(("source", "kept"), [("'a' ~ '\\x00'", "a\\x00"), ("'\\ud800'", "\\ud800")])
async def test_a_correlation_that_postgres_cannot_hold_is_an_escape(desk: Desk, source: str, kept: str) -> None:
    async with engine(desk.url):
        execution = await waiting_for(desk, source)
        await desk.until(execution, "waiting")
        assert await desk.signal("e", kept) == 1
        await desk.until(execution, "completed")


async def test_a_correlation_that_no_index_holds_fails_by_its_name(desk: Desk) -> None:
    async with engine(desk.url):
        execution = await waiting_for(desk, "input.long", {"long": "".join(str(uuid4()) for _ in range(300))})
        assert "wait_for_event.correlation: " in (await desk.until(execution, "failed"))["last_error"]


async def test_a_definition_that_cannot_be_read_fails_its_executions(desk: Desk) -> None:
    rule = await desk.value("INSERT INTO fw_workflow_rules (organization_id, name) VALUES ('acme', 'w') RETURNING id")
    await desk.rows("INSERT INTO fw_workflow_definitions VALUES ($1, 1, $2)", rule, f'{{"steps": {DEEP}}}')
    async with engine(desk.url, one):
        for _ in range(2):
            failed = await desk.until(await desk.start("w"), "failed")
            assert failed["last_error"] == "INVALID_DEFINITION: it is nested deeper than 200"
