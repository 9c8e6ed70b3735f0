"""`intelliflow workflow retry`, `cancel` and `purge`: what they change, what they leave, how much at a time."""

from __future__ import annotations

import os
import signal
import tracemalloc
from typing import TYPE_CHECKING, Any

from command_line import operator
from worker_ops.exit_codes import ExitCode
from worker_ops.workflow.changing_store import ChangingStore
from workflow_rows import ORG, dead, execution, many, messages, of, waiting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    import pytest

    from command_line import Operator

__all__ = ["operator"]

# A page of ids, and what the driver makes of a statement: not a hundred thousand rows.
MANY, MOST_BYTES = 100_000, 8 * 2**20
UNKNOWN = "00000000-0000-0000-0000-000000000000"
SEND = "SELECT pgmq.send('workflow_execution_queue', jsonb_build_object('organization_id', %s::text))"
FENCED = "UPDATE fw_workflow_executions SET lease_owner = 'worker-1' WHERE id = %s AND lease_token = 7"


def counts(operator: Operator, org: str = ORG) -> dict[str, int]:
    rows = operator.database.execute(
        "SELECT status, count(*) FROM fw_workflow_executions WHERE organization_id = %s GROUP BY status", [org]
    )
    return dict(rows.fetchall())


def chunk_sizes(operator: Operator, monkeypatch: pytest.MonkeyPatch, verb: str, line: str) -> list[int]:
    """Run a command; return how many executions each of its changes was about."""
    sizes, change = [], getattr(ChangingStore, verb)

    async def counted(store: ChangingStore, executions: Sequence[UUID], *more: str) -> Any:
        sizes.append(len(executions))
        return await change(store, executions, *more)

    with monkeypatch.context() as patched:
        patched.setattr(ChangingStore, verb, counted)
        assert operator.run(line).code == ExitCode.OK
    return sizes


def test_a_failed_execution_is_opened_again_only_when_told_to(operator: Operator) -> None:
    name, other, done = dead(operator), dead(operator), execution(operator, "completed")
    old_message = of(operator, name, "msg_id")
    dry = operator.run(f"workflow retry {name}")
    assert dry.code == ExitCode.REFUSED
    assert "would open again 1 executions" in dry.err
    assert of(operator, name) == "failed"
    said = operator.run(f"workflow retry {name} {done} {UNKNOWN} --apply -o json")
    assert said.code == ExitCode.PARTIAL
    assert [row["outcome"] for row in said.rows] == ["reopened", "left as it was: completed", "unknown"]
    row = operator.database.execute(
        "SELECT status, round, retry_count, completed_at, replayed_from FROM fw_workflow_executions WHERE id = %s",
        [name],
    ).fetchone()
    assert row == ("queued", 1, 0, None, old_message)
    assert operator.value("SELECT message->>'execution_id' FROM pgmq.q_workflow_dlq") == other
    sent = operator.value("SELECT message FROM pgmq.q_workflow_execution_queue")
    assert (sent["execution_id"], sent["attempt"]) == (name, 1)
    assert operator.run(f"workflow retry {name} --apply").code == ExitCode.NOT_FOUND
    assert operator.run(f"workflow retry {UNKNOWN} --apply").code == ExitCode.NOT_FOUND


def test_failed_executions_are_opened_again_by_what_they_died_of(operator: Operator) -> None:
    for error in ("HTTP_500: no", "HTTP_500: still no", "TIME_LIMIT: too long"):
        dead(operator, error=error)
    neighbour = dead(operator, "org-2")
    line = f"workflow retry --org {ORG} --error HTTP_500 --status failed"
    dry = operator.run(f"{line} -o json")
    assert (dry.code, [row["count"] for row in dry.rows]) == (ExitCode.REFUSED, [2])
    assert operator.run(f"{line} --apply -o json").rows == [{"matched": 2, "reopened": 2}]
    assert counts(operator) == {"queued": 2, "failed": 1}
    assert of(operator, neighbour) == "failed"
    assert operator.run("workflow retry --error HTTP_500 --apply -o json").rows == [{"matched": 1, "reopened": 1}]
    assert of(operator, neighbour) == "queued"


def test_a_verb_that_changes_says_what_it_needs(operator: Operator) -> None:
    name = dead(operator)
    for line in (
        "retry",
        "cancel",
        "cancel --status queued",
        f"retry {name} --org {ORG}",
        f"retry --org {ORG} --status queued",
    ):
        assert operator.run(f"workflow {line} --apply").code == ExitCode.USAGE
    assert operator.run("workflow cancel", *[UNKNOWN] * 1001).code == ExitCode.USAGE
    assert operator.run(f"workflow cancel {name} --apply").code == ExitCode.NOT_FOUND


def test_what_nobody_works_on_is_cancelled_at_once_and_what_runs_is_asked(operator: Operator) -> None:
    queued, waits, running = execution(operator), waiting(operator), execution(operator, "running", ready=30)
    retried = execution(operator, "retry_pending", ready=30)
    assert operator.run(f"workflow cancel {queued}").code == ExitCode.REFUSED
    assert counts(operator) == {"queued": 1, "waiting": 1, "running": 1, "retry_pending": 1}
    said = operator.run(
        f"workflow cancel {queued} {waits} {running} {retried} --apply -o json --by ann --reason", "a typo"
    )
    assert said.code == ExitCode.OK
    assert [row["outcome"] for row in said.rows] == ["cancelled", "cancelled", "ends at its next step", "cancelled"]
    assert counts(operator) == {"cancelled": 3, "running": 1}
    assert of(operator, running, "cancel_requested_at IS NOT NULL")
    assert of(operator, queued, "completed_at IS NOT NULL AND lease_token = 8")
    assert of(operator, queued, "last_error") == "CANCELLED: cancelled by ann: a typo"
    assert operator.value("SELECT count(*) FROM fw_workflow_waits") == 0
    assert operator.value("SELECT message->>'execution_id' FROM pgmq.q_workflow_execution_queue") == running
    assert operator.value("SELECT count(*) FROM pgmq.a_workflow_execution_queue") == 3


def test_children_end_with_their_parent_and_a_parent_hears_of_its_child(operator: Operator) -> None:
    parent = waiting(operator)
    child = execution(operator, parent=parent)
    grandchild = execution(operator, "running", parent=child)
    lone_parent = waiting(operator)
    lone_child = execution(operator, parent=lone_parent)
    operator.run(f"workflow cancel {parent} {lone_child} --apply")
    assert [of(operator, name) for name in (parent, child)] == ["cancelled", "cancelled"]
    assert of(operator, grandchild, "cancel_requested_at IS NOT NULL")
    assert of(operator, lone_parent, "status = 'waiting' AND ready_at <= clock_timestamp()")


def test_a_family_is_ended_by_hand_in_one_statement(operator: Operator) -> None:
    parent = waiting(operator)
    child = execution(operator, parent=parent)
    execution(operator, parent=child)
    operator.database.execute("UPDATE fw_workflow_executions SET status = 'cancelled'")
    assert counts(operator) == {"cancelled": 3}
    assert messages(operator) == 0


def test_described_executions_are_cancelled_in_every_organisation_that_has_them(operator: Operator) -> None:
    for org in ("a", "b"):
        execution(operator, org=org)
        execution(operator, "running", org=org)
    execution(operator, org="c", workflow="other")
    done = operator.run("workflow cancel --rule demo --apply -o json")
    assert done.rows == [{"matched": 4, "cancelled": 2, "ends at its next step": 2}]
    assert counts(operator, "c") == {"queued": 1}
    assert operator.run("workflow cancel --rule other --status running --apply -o json").rows == [{"matched": 0}]


def test_a_purge_takes_one_organisations_work_and_messages_only(operator: Operator) -> None:
    many(operator, 30)
    many(operator, 20, org="org-2")
    running, done = execution(operator, "running", ready=30), execution(operator, "completed")
    failed, neighbour = dead(operator), dead(operator, "org-2")
    operator.database.execute(SEND, [ORG])
    dry = operator.run(f"workflow purge {ORG} --dlq -o json")
    assert (dry.code, sum(row["count"] for row in dry.rows)) == (ExitCode.REFUSED, 31)
    assert "cancel 31 executions and remove 32 messages of workflow_execution_queue, 1 messages" in dry.err
    assert (messages(operator), counts(operator)["queued"]) == (32, 30)

    said = operator.json(f"workflow purge {ORG} --apply")

    assert of(operator, running, "last_error").startswith("CANCELLED: purged by ")
    assert said == [{"matched": 31, "cancelled": 31, "messagesRemoved": 32}]
    assert counts(operator) == {"cancelled": 31, "completed": 1, "failed": 1}
    assert counts(operator, "org-2") == {"queued": 20, "failed": 1}
    assert (messages(operator), messages(operator, "org-2")) == (0, 20)
    assert operator.database.execute(FENCED, [running]).rowcount == 0
    assert of(operator, done) == "completed"
    assert messages(operator, queue="workflow_dlq") == 1
    removed = operator.json(f"workflow purge {ORG} --dlq --apply")
    assert removed == [{"matched": 0, "cancelled": 0, "messagesRemoved": 0, "deadLettersRemoved": 1}]
    assert operator.value("SELECT message->>'execution_id' FROM pgmq.q_workflow_dlq") == neighbour
    assert of(operator, failed) == "failed"
    assert operator.json(f"workflow purge {ORG} --dlq") == [
        {"matched": 0, "cancelled": 0, "messagesRemoved": 0, "deadLettersRemoved": 0}
    ]


def test_a_hundred_thousand_are_cancelled_purged_and_retried_in_pages_and_little_memory(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(operator, MANY)
    many(operator, 2_500, "failed", "org-2")
    sizes = [*chunk_sizes(operator, monkeypatch, "reopen", "workflow retry --org org-2 --apply -o json")]
    assert sizes == [1_000, 1_000, 500]
    assert counts(operator, "org-2") == {"queued": 2_500}
    sizes = chunk_sizes(operator, monkeypatch, "cancel", "workflow cancel --org org-2 --apply -o json")
    assert (len(sizes), max(sizes)) == (3, 1_000)
    tracemalloc.start()
    sizes = chunk_sizes(operator, monkeypatch, "purge", f"workflow purge {ORG} --apply -o json")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(sizes), max(sizes)) == (MANY // 1_000, 1_000)
    assert counts(operator) == {"cancelled": MANY}
    assert messages(operator) == 0
    assert peak < MOST_BYTES


def test_an_interrupted_command_says_how_far_it_came_and_the_next_goes_on(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(operator, 2_500)
    cancel = ChangingStore.cancel

    async def interrupted(store: ChangingStore, executions: Sequence[UUID], reason: str) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return await cancel(store, executions, reason)

    line = f"workflow cancel --org {ORG} --apply -o json"
    with monkeypatch.context() as patched:
        patched.setattr(ChangingStore, "cancel", interrupted)
        said = operator.run(line)
    assert (said.code, said.rows) == (ExitCode.PARTIAL, [{"matched": 2_500, "cancelled": 1_000}])
    assert "goes on where it stopped" in said.err
    assert operator.run(line).rows == [{"matched": 1_500, "cancelled": 1_500}]
