"""Each statement of the runbook and the admin guide does what is said of it there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

import seed_sql
from worker_runtime.postgres import BY_INDEX, Database
from workflow_worker.execution import Completed, Failing, StepRecord
from workflow_worker.store.claims import ClaimStore
from workflow_worker.store.ledger import LedgerStore, Write
from workflow_worker.store.presence import PresenceStore
from workflow_worker.store.upkeep import UpkeepStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from workflow_worker.execution import Ending, Execution

EXECUTION = """
INSERT INTO fw_workflow_executions (id, organization_id, workflow, workflow_version) VALUES (%s, %s, 'demo', 1)
"""
STATUS = "SELECT status FROM fw_workflow_executions WHERE id = %s"
# Of an execution's own message: whether it is there, and due.
DUE = """
SELECT message.vt <= clock_timestamp() FROM fw_workflow_executions AS execution
       JOIN pgmq.q_workflow_execution_queue AS message USING (msg_id) WHERE execution.id = %s
"""


class Desk:
    """The operator's login, and a worker's stores beside it."""

    def __init__(self, connection: psycopg.Connection[Any], database: Database) -> None:
        self.connection = connection
        self.claims = ClaimStore(database, "worker-1")
        self.ledger = LedgerStore(database, "worker-1")
        self.presence = PresenceStore(database)
        self.upkeep = UpkeepStore(database)

    def type(self, block: str, **given: object) -> list[list[dict[str, Any]]]:
        """Run the statements of a block one by one and return what each shows."""
        shown = []
        for statement in seed_sql.statements(block, **given):
            cursor = self.connection.cursor(row_factory=dict_row).execute(statement.encode())
            shown.append(cursor.fetchall() if cursor.description else [{"rows": cursor.rowcount}])
        return shown

    def value(self, question: str, *about: Any) -> Any:
        row = self.connection.execute(question.encode(), about).fetchone()
        return row[0] if row else None

    def enable(self, *organisations: str) -> None:
        for one in organisations:
            self.connection.execute(
                "INSERT INTO fw_module_settings (organization_id, fw_execution_worker_enabled) VALUES (%s, true)", [one]
            )

    def execution(self, organisation: str = "acme") -> UUID:
        key = uuid4()
        self.connection.execute(EXECUTION, [key, organisation])
        return key

    def status(self, key: UUID) -> str:
        return str(self.value(STATUS, key))

    async def claim(self) -> Sequence[Execution]:
        claims = await self.claims.claim(10, 10, (), "")
        return claims.executions

    async def claimed(self, organisation: str = "acme") -> Execution:
        """A new execution as a worker holds it, and its organisation's row as workers write it."""
        key = self.execution(organisation)
        (held,) = [one for one in await self.claim() if one.id == key]
        await self.presence.write({organisation: 1})
        return held

    async def end(self, held: Execution, ending: Ending) -> bool:
        """Whether the worker may still write how it ended."""
        (standing,) = await self.ledger.write([Write(held, [], ending)])
        return standing is not None

    async def failed(self, organisation: str = "acme") -> tuple[UUID, int]:
        """An execution that has failed for good, and its dead letter."""
        held = await self.claimed(organisation)
        assert await self.end(held, Failing("HTTP_500: no", None))
        letter = "SELECT msg_id FROM pgmq.q_workflow_dlq WHERE message->>'execution_id' = %s"
        return held.id, self.value(letter, str(held.id))


def step_of(output: str) -> StepRecord:
    now = datetime.now(UTC)
    return StepRecord("charge", "http", "completed", output, now, now)


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        async with Database(database_url, settings=BY_INDEX) as database:
            made = Desk(connection, database)
            made.enable("acme", "other")
            yield made


async def test_a_pause_keeps_the_messages_and_starts_nothing_until_it_is_resumed(desk: Desk) -> None:
    running, waiting = await desk.claimed(), desk.execution()
    assert desk.type(seed_sql.SAFE_PAUSE) == [[{"unschedule": True}], []]
    assert desk.value("SELECT fw_workflows_scheduled()") is False
    assert await desk.claim() == []
    assert desk.value(DUE, waiting) is True
    # What was at work may end.
    assert await desk.end(running, Completed(None))
    ((resumed,),) = desk.type(seed_sql.RESUME)
    assert resumed["schedule"] == desk.value("SELECT jobid FROM cron.job WHERE jobname = 'process-workflow-queue'")
    assert [one.id for one in await desk.claim()] == [waiting]


async def test_a_pause_that_is_paused_says_so_and_stays_one(desk: Desk) -> None:
    desk.type(seed_sql.SAFE_PAUSE)
    with pytest.raises(psycopg.errors.RaiseException, match="could not find valid entry for job") as error:
        desk.type(seed_sql.SAFE_PAUSE)
    assert error.value.diag.message_hint == "It may be unscheduled already."
    assert desk.value("SELECT fw_workflows_scheduled()") is False


async def test_to_switch_the_job_off_is_a_pause_and_to_schedule_it_ends_that(desk: Desk) -> None:
    waiting = desk.execution()
    desk.value("SELECT cron.alter_job(jobid, active := false) FROM cron.job WHERE jobname = 'process-workflow-queue'")
    assert await desk.claim() == []
    desk.type(seed_sql.RESUME)
    assert [one.id for one in await desk.claim()] == [waiting]


async def test_resuming_twice_is_resuming_once(desk: Desk) -> None:
    desk.type(seed_sql.RESUME)
    desk.type(seed_sql.RESUME)
    assert desk.value("SELECT count(*) FROM cron.job WHERE jobname = 'process-workflow-queue'") == 1


async def test_the_command_that_is_scheduled_wakes_the_workers(desk: Desk) -> None:
    desk.type(seed_sql.RESUME)
    desk.connection.execute("LISTEN workflow_executions")
    desk.connection.execute(desk.value("SELECT command FROM cron.job WHERE jobname = 'process-workflow-queue'"))
    (told,) = list(desk.connection.notifies(timeout=10, stop_after=1))
    assert told.channel == "workflow_executions"
    with pytest.raises(psycopg.errors.RaiseException, match="there is no function workflow-executor"):
        desk.value("SELECT util.invoke_edge_function('workflow-executor', '{}'::jsonb)")


async def test_a_stuck_organisation_is_shown_and_reset_and_its_worker_is_fenced_off(desk: Desk) -> None:
    held, others = await desk.claimed(), await desk.claimed("other")
    assert desk.value(DUE, held.id) is False
    stuck, reset, reset_all = desk.type(seed_sql.RESET_STUCK_SEMAPHORE, org_id="acme")
    assert sorted((row["organization_id"], row["worker_running"]) for row in stuck) == [("acme", True), ("other", True)]
    assert (reset, reset_all) == ([{"rows": 1}], [{"rows": 0}])
    # Its executions are free at once, and whoever had them writes nothing any more.
    assert (desk.status(held.id), desk.value(DUE, held.id)) == ("queued", True)
    assert await desk.end(held, Completed("too late")) is False
    (again,) = await desk.claim()
    assert (again.id, again.lease.token > held.lease.token, again.crash_count) == (held.id, True, 0)
    assert await desk.end(again, Completed("done"))
    # Another organisation notices nothing.
    assert desk.status(others.id) == "running"
    assert await desk.end(others, Completed(None))


async def test_what_a_worker_says_by_an_older_lease_does_not_pass_beside_its_newer_one(desk: Desk) -> None:
    """It lost the execution and claimed it again, and both turns say something at the same moment."""
    held = await desk.claimed()
    desk.connection.execute("UPDATE fw_module_settings SET worker_running = false WHERE organization_id = 'acme'")
    (again,) = await desk.claim()
    assert again.id == held.id
    old, new = [step_of(one) for one in ("old", "new")]
    first, second = await desk.ledger.write([Write(again, [new]), Write(held, [old], Completed("too late"))])
    assert (first is not None, second) == (True, None)
    assert desk.value("SELECT output FROM fw_workflow_steps WHERE execution_id = %s", held.id) == "new"
    assert desk.status(held.id) == "running"


async def test_all_that_are_stuck_for_five_minutes_are_reset_and_nobody_else(desk: Desk) -> None:
    held, others = await desk.claimed(), await desk.claimed("other")
    desk.connection.execute(
        "UPDATE fw_module_settings SET worker_last_run_at = now() - interval '6 minutes' WHERE organization_id = 'acme'"
    )
    *_, reset_all = desk.type(seed_sql.RESET_STUCK_SEMAPHORE, org_id="nobody")
    assert reset_all == [{"rows": 1}]
    assert (desk.status(held.id), desk.status(others.id)) == ("queued", "running")
    assert await desk.end(held, Completed(None)) is False


async def test_a_worker_that_comes_to_rest_frees_nothing(desk: Desk) -> None:
    held = await desk.claimed()
    assert await desk.end(held, Completed(None))
    later = desk.execution()
    (other,) = await desk.claim()
    assert other.id == later
    desk.connection.execute("UPDATE fw_workflow_executions SET organization_id = 'elsewhere' WHERE id = %s", [later])
    await desk.presence.write({})
    assert desk.value("SELECT worker_running FROM fw_module_settings WHERE organization_id = 'acme'") is False
    assert desk.status(later) == "running"


async def test_the_backlog_is_what_is_due(desk: Desk) -> None:
    held = await desk.claimed()
    assert await desk.end(await desk.claimed(), Failing("HTTP_503: later", 3600))
    waiting = desk.execution("other")
    total, by_organisation, (oldest,) = desk.type(seed_sql.BACKLOG)
    assert (total, by_organisation) == ([{"count": 1}], [{"org_id": "other", "count": 1}])
    assert oldest["execution_id"] == str(waiting)
    assert desk.type(seed_sql.QUEUE_DEPTH) == [[{"pending_messages": 1}]]
    assert desk.status(held.id) == "running"


async def test_the_backlog_counts_by_organisation_and_names_the_oldest(desk: Desk) -> None:
    first, *_ = [desk.execution() for _ in range(3)]
    desk.execution("other")
    total, by_organisation, (oldest,) = desk.type(seed_sql.BACKLOG)
    assert total == [{"count": 4}]
    assert by_organisation == [{"org_id": "acme", "count": 3}, {"org_id": "other", "count": 1}]
    assert oldest["execution_id"] == str(first)


async def test_what_has_slept_for_long_is_not_late_for_that(desk: Desk) -> None:
    key = desk.execution()
    slept = "UPDATE pgmq.q_workflow_execution_queue SET enqueued_at = now() - interval '30 days', vt = now()"
    desk.connection.execute(f"{slept} - interval '90 seconds'".encode())
    counts = await desk.upkeep.count()
    assert (counts.waiting, desk.status(key)) == (1, "queued")
    assert 90 <= counts.oldest_seconds < 1000


async def test_failures_are_shown_with_their_dead_letters(desk: Desk) -> None:
    key, letter = await desk.failed()
    retried = await desk.claimed()
    assert await desk.end(retried, Failing("HTTP_503: later", 3600))
    executions, letters = desk.type(seed_sql.FAILURES)
    assert [(row["id"], row["status"], row["retry_count"], row["last_error"]) for row in executions] == [
        (key, "failed", 1, "HTTP_500: no"),
        (retried.id, "retry_pending", 1, "HTTP_503: later"),
    ]
    assert executions[1]["next_retry_at"] is not None
    assert [(row["msg_id"], row["execution_id"], row["error"], row["attempts"]) for row in letters] == [
        (letter, str(key), "HTTP_500: no", "1")
    ]
    (count,), (details,) = desk.type(seed_sql.DEAD_LETTERS)
    assert count == {"dlq_messages": 1}
    assert (details["msg_id"], details["error"], bool(details["failed_at"])) == (letter, "HTTP_500: no", True)


async def test_an_emergency_stops_all_at_once(desk: Desk) -> None:
    held, waiting = await desk.claimed(), desk.execution("other")
    assert desk.type(seed_sql.EMERGENCY) == [[{"rows": 2}], [{"unschedule": True}]]
    assert desk.value("SELECT fw_workflows_scheduled()") is False
    assert await desk.claim() == []
    # What was at work is given back where it was, and its worker writes nothing any more.
    assert (desk.status(held.id), desk.status(waiting)) == ("queued", "queued")
    assert await desk.end(held, Completed(None)) is False
    # One half of the remedy starts nothing.
    desk.type(seed_sql.RESUME)
    assert await desk.claim() == []
    desk.connection.execute("UPDATE fw_module_settings SET fw_execution_worker_enabled = true")
    assert {one.id for one in await desk.claim()} == {held.id, waiting}


async def test_one_organisation_that_is_disabled_starts_nothing_and_others_do(desk: Desk) -> None:
    held = await desk.claimed()
    mine, others = desk.execution(), desk.execution("other")
    desk.connection.execute(
        "UPDATE fw_module_settings SET fw_execution_worker_enabled = false WHERE organization_id = 'acme'"
    )
    assert [one.id for one in await desk.claim()] == [others]
    assert desk.status(mine) == "queued"
    assert await desk.end(held, Completed(None))


async def test_a_rollback_ends_what_was_to_do_and_empties_both_queues(desk: Desk) -> None:
    dead, _ = await desk.failed()
    retried = await desk.claimed()
    assert await desk.end(retried, Failing("HTTP_503: later", 3600))
    held, queued = await desk.claimed(), desk.execution()
    done = await desk.claimed("other")
    assert await desk.end(done, Completed("kept"))
    desk.type(seed_sql.ROLLBACK)
    for key in (retried.id, held.id, queued):
        assert desk.status(key) == "failed"
        ended = "SELECT last_error, completed_at IS NOT NULL, next_retry_at IS NULL, lease_owner IS NULL"
        row = desk.connection.execute(f"{ended} FROM fw_workflow_executions WHERE id = %s".encode(), [key]).fetchone()
        assert row == ("Worker rollback", True, True, True)
    assert (desk.status(dead), desk.status(done.id)) == ("failed", "completed")
    assert await desk.end(held, Completed(None)) is False
    assert desk.value("SELECT count(*) FROM pgmq.q_workflow_execution_queue") == 0
    assert desk.value("SELECT count(*) FROM pgmq.q_workflow_dlq") == 0
    # It stays so: nothing is sent again for what is over.
    await desk.upkeep.sweep()
    assert desk.value("SELECT count(*) FROM pgmq.q_workflow_execution_queue") == 0
    desk.type(seed_sql.RESUME)
    desk.connection.execute("UPDATE fw_module_settings SET fw_execution_worker_enabled = true")
    assert await desk.claim() == []


async def test_a_rollback_of_parents_and_children_together(desk: Desk) -> None:
    parent = await desk.claimed()
    children = [desk.execution() for _ in range(3)]
    desk.connection.execute(
        "UPDATE fw_workflow_executions SET parent_id = %s, parent_step = 'child' WHERE id = ANY (%s)",
        [parent.id, children],
    )
    desk.connection.execute(
        "UPDATE fw_workflow_executions SET status = 'failed', last_error = 'Worker rollback'"
        " WHERE status IN ('queued', 'retry_pending', 'running', 'waiting')"
    )
    assert {desk.status(key) for key in (parent.id, *children)} == {"failed"}


async def test_a_purge_by_itself_loses_nothing(desk: Desk) -> None:
    keys = {desk.execution() for _ in range(3)}
    desk.connection.execute("SELECT pgmq.purge_queue('workflow_execution_queue')")
    assert desk.type(seed_sql.QUEUE_DEPTH) == [[{"pending_messages": 0}]]
    swept = await desk.upkeep.sweep()
    assert (swept.resent, desk.type(seed_sql.QUEUE_DEPTH)) == (3, [[{"pending_messages": 3}]])
    assert {one.id for one in await desk.claim()} == keys


async def test_a_dead_letter_that_is_moved_back_opens_its_execution_again(desk: Desk) -> None:
    key, letter = await desk.failed()
    before = desk.value("SELECT msg_id FROM fw_workflow_executions WHERE id = %s", key)
    sent, deleted = desk.type(seed_sql.DEAD_LETTER_RETRY, msg_id=letter)
    assert deleted == [{"delete": True}]
    row = desk.connection.execute(
        "SELECT status, retry_count, total_attempts, round, msg_id, replayed_from, completed_at"
        " FROM fw_workflow_executions WHERE id = %s",
        [key],
    ).fetchone()
    assert row == ("queued", 0, 1, 1, sent[0]["send"], before, None)
    message = desk.value("SELECT message FROM pgmq.q_workflow_execution_queue WHERE msg_id = %s", sent[0]["send"])
    assert (message["attempt"], message["execution_id"]) == (1, str(key))
    assert desk.type(seed_sql.DEAD_LETTERS)[0] == [{"dlq_messages": 0}]
    (again,) = await desk.claim()
    assert again.id == key
    assert await desk.end(again, Completed("at last"))
    assert desk.status(key) == "completed"
    assert desk.value("SELECT count(*) FROM pgmq.q_workflow_execution_queue") == 0


async def test_a_dead_letter_that_is_moved_back_twice_is_run_once(desk: Desk) -> None:
    key, letter = await desk.failed()
    first, *_ = seed_sql.statements(seed_sql.DEAD_LETTER_RETRY, msg_id=letter)
    for _ in range(2):
        desk.connection.execute(first.encode())
    assert [one.id for one in await desk.claim()] == [key]
    assert desk.value("SELECT round FROM fw_workflow_executions WHERE id = %s", key) == 1


@pytest.mark.parametrize("status", ["completed", "cancelled", "queued"])
async def test_only_what_has_failed_is_opened_again(desk: Desk, status: str) -> None:
    key, letter = await desk.failed()
    desk.connection.execute("UPDATE fw_workflow_executions SET status = %s WHERE id = %s", [status, key])
    desk.type(seed_sql.DEAD_LETTER_RETRY, msg_id=letter)
    assert desk.status(key) == status


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"execution_id": "no uuid"},
        {"execution_id": str(uuid4())},
        {"execution_id": None, "organization_id": 5},
        ["a list"],
        "text",
        5,
        None,
    ],
)
async def test_a_message_that_somebody_makes_up_does_no_harm(desk: Desk, message: Any) -> None:
    key = desk.execution()
    desk.value("SELECT pgmq.send('workflow_execution_queue', %s::jsonb)", json.dumps(message))
    assert [one.id for one in await desk.claim()] == [key]


async def test_a_message_of_one_organisation_opens_nothing_of_another_s(desk: Desk) -> None:
    key, _ = await desk.failed()
    message = {"execution_id": str(key), "organization_id": "other", "attempt": 1}
    desk.value("SELECT pgmq.send('workflow_execution_queue', %s::jsonb)", json.dumps(message))
    assert desk.status(key) == "failed"


async def test_only_old_dead_letters_are_purged(desk: Desk) -> None:
    (old, _), (young, _) = await desk.failed(), await desk.failed()
    desk.connection.execute(
        "UPDATE pgmq.q_workflow_dlq SET enqueued_at = now() - interval '31 days' WHERE message->>'execution_id' = %s",
        [str(old)],
    )
    assert desk.type(seed_sql.PURGE_OLD_DEAD_LETTERS) == [[{"rows": 1}]]
    assert desk.value("SELECT message->>'execution_id' FROM pgmq.q_workflow_dlq") == str(young)
    assert desk.status(old) == "failed"


async def test_health_shows_who_ran_and_the_job(desk: Desk) -> None:
    desk.enable("idle")
    desk.connection.execute("INSERT INTO fw_module_settings (organization_id) VALUES ('disabled')")
    await desk.claimed()
    runs, ((job),) = desk.type(seed_sql.HEALTH)
    assert [(row["organization_id"], row["worker_last_batch_size"]) for row in runs] == [
        ("acme", 1),
        *[(name, None) for name in ("other", "idle")],
    ]
    assert runs[0]["time_since_last_run"].total_seconds() < 60
    assert (job["jobname"], job["schedule"], job["active"]) == ("process-workflow-queue", "* * * * *", True)
    (history,) = desk.type(seed_sql.RUN_HISTORY)
    columns = ("organization_id", "worker_running", "worker_last_batch_size")
    assert sorted(tuple(row[column] for column in columns) for row in history) == [
        ("acme", True, 1),
        ("idle", False, None),
        ("other", False, None),
    ]


@pytest.mark.parametrize(
    ("column", "least", "most", "usual"),
    [
        ("fw_worker_batch_size", 1, 50, 10),
        ("fw_worker_visibility_timeout_seconds", 30, 600, 30),
    ],
)
async def test_a_setting_has_its_range_and_its_default(
    desk: Desk, column: str, least: int, most: int, usual: int
) -> None:
    assert desk.value(f"SELECT {column} FROM fw_module_settings WHERE organization_id = 'acme'") == usual
    for good in (least, most):
        desk.connection.execute(f"UPDATE fw_module_settings SET {column} = {good}".encode())
    for wrong in (least - 1, most + 1):
        with pytest.raises(psycopg.errors.CheckViolation):
            desk.connection.execute(f"UPDATE fw_module_settings SET {column} = {wrong}".encode())


async def test_the_worker_is_off_by_default(desk: Desk) -> None:
    desk.connection.execute("INSERT INTO fw_module_settings (organization_id) VALUES ('new')")
    desk.execution("new")
    desk.execution("without settings")
    assert await desk.claim() == []


async def test_all_of_it_runs_in_one_go(desk: Desk) -> None:
    """Section after section, as somebody does who tries out the pages: none is left out, and none is refused."""
    _, letter = await desk.failed()
    await desk.claimed()
    pages = (*seed_sql.GUIDE, *seed_sql.RUNBOOK)
    ran = 0
    for block in pages:
        if block in (seed_sql.EMERGENCY, seed_sql.ROLLBACK):
            # Each begins with a job that is scheduled.
            desk.type(seed_sql.RESUME)
        ran += len(desk.type(block, org_id="acme", msg_id=letter))
    assert ran == sum(block.count(";") - block.count(";$$") for block in pages) == seed_sql.STATEMENTS


async def test_many_rows_are_rolled_back_in_a_few_seconds(desk: Desk) -> None:
    desk.connection.execute(
        "INSERT INTO fw_workflow_executions (organization_id, workflow, workflow_version)"
        " SELECT 'acme', 'demo', 1 FROM generate_series(1, 5000)"
    )
    # A thousand a second would be slow.
    desk.connection.execute("SET statement_timeout = '20s'")
    desk.type(seed_sql.ROLLBACK)
    assert desk.value("SELECT count(*) FROM fw_workflow_executions WHERE status = 'failed'") == 5000
