"""`intelliflow workflow`: what an operator sees of executions and what organisations have set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from command_line import operator
from worker_ops.exit_codes import ExitCode
from workflow_rows import ORG, STEPS, dead, enable, execution, messages, of, rule, step, waiting

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Operator

__all__ = ["operator"]

ANNOUNCE = "INSERT INTO fw_workflow_code (workflow, version) VALUES (%s, 1)"


def ids(rows: Any) -> list[str]:
    return [row["executionId"] for row in rows]


def test_settings_are_made_changed_and_shown(operator: Operator) -> None:
    assert operator.run(f"workflow settings {ORG}").code == ExitCode.NOT_FOUND
    made = operator.json(f"workflow settings {ORG} --enable --batch-size 25 --visibility-timeout 120")
    expected = {"enabled": True, "batchSize": 25, "visibilityTimeoutSeconds": 120, "maxConcurrency": 100}
    assert {name: made[name] for name in expected} == expected
    assert (made["paused"], made["workerRunning"], made["workerLastRun"], made["ready"]) == (None, False, None, 0)
    changed = operator.json(f"workflow settings {ORG} --max-concurrency 7")
    assert (changed["maxConcurrency"], changed["batchSize"], changed["enabled"]) == (7, 25, True)
    disabled = operator.run(f"workflow settings {ORG} --disable -o json")
    assert disabled.rows["enabled"] is False
    assert "do not run" in disabled.err
    enable(operator, "org-2")
    assert [row["organizationId"] for row in operator.json("workflow settings")] == [ORG, "org-2"]


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("--batch-size 0", "1 to 50"),
        ("--batch-size 51", "1 to 50"),
        ("--visibility-timeout 29", "30 to 600"),
        ("--visibility-timeout 601", "30 to 600"),
        ("--max-concurrency 10001", "1 to 10000"),
        ("--batch-size ten", "1 to 50"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_in_a_sentence(operator: Operator, option: str, allowed: str) -> None:
    said = operator.run(f"workflow settings {ORG} {option}")
    assert said.code == ExitCode.USAGE
    assert f"is not a whole number from {allowed}" in said.err
    assert operator.value("SELECT count(*) FROM fw_module_settings") == 0
    assert operator.run("workflow settings --enable").code == ExitCode.USAGE


def test_settings_count_what_there_is_to_do(operator: Operator) -> None:
    enable(operator)
    for status, ready in (("queued", 0.0), ("waiting", 60.0), ("running", 30.0), ("completed", 0.0)):
        execution(operator, status, ready=ready)
    row = operator.json(f"workflow settings {ORG}")
    assert (row["atWork"], row["ready"], row["later"]) == (1, 1, 1)


def test_an_organisation_is_paused_and_goes_on(operator: Operator) -> None:
    assert operator.run(f"workflow pause {ORG} --reason x").code == ExitCode.NOT_FOUND
    enable(operator)
    execution(operator, "running")
    paused = operator.run(f"workflow pause {ORG} -o json --reason", "the shop is down")
    assert paused.rows["pauseReason"] == "the shop is down"
    assert "1 are at work" in paused.err
    since = paused.rows["paused"]
    assert operator.json(f"workflow pause {ORG} --reason still")["paused"] == since
    assert "it is paused (still)" in operator.run(f"workflow settings {ORG}").err
    resumed = operator.json(f"workflow resume {ORG}")
    assert (resumed["paused"], resumed["pauseReason"]) == (None, None)
    assert operator.run("workflow resume nobody").code == ExitCode.NOT_FOUND


def test_a_missing_schedule_is_told_wherever_it_matters(operator: Operator) -> None:
    enable(operator)
    assert operator.run(f"workflow settings {ORG}").err == ""
    operator.database.execute("SELECT cron.unschedule('process-workflow-queue')")
    said = operator.run(f"workflow resume {ORG}").err
    statement = said[said.index("SELECT") :]
    operator.database.execute(statement)
    assert operator.run(f"workflow settings {ORG}").err == ""


def test_a_workflow_is_started_once_for_a_key(operator: Operator, tmp_path: Path) -> None:
    enable(operator)
    operator.database.execute(ANNOUNCE, ["order.fulfil"])
    (tmp_path / "input.json").write_text('{"orderId": "o-1"}')
    first = operator.json(f"workflow start {ORG} order.fulfil --key k-1 --input @{tmp_path}/input.json")
    again = operator.run(f"workflow start {ORG} order.fulfil --key k-1 -o json")
    assert again.rows == {"executionId": first["executionId"], "started": False}
    assert "started before" in again.err
    assert of(operator, first["executionId"], "input") == {"orderId": "o-1"}
    assert messages(operator) == 1
    assert operator.json(f"workflow start {ORG} order.fulfil")["started"] is True
    unknown = operator.run(f"workflow start {ORG} order.lost")
    assert unknown.code == ExitCode.NOT_FOUND
    assert "no active workflow order.lost" in unknown.err
    assert operator.run(f"workflow start {ORG} order.fulfil --input nonsense").code == ExitCode.USAGE
    assert operator.run(f"workflow start {ORG} order.fulfil --input @{tmp_path}/none").code == ExitCode.USAGE


def test_a_start_that_would_only_wait_says_so(operator: Operator) -> None:
    operator.database.execute(ANNOUNCE, ["demo"])
    assert "--enable" in operator.run("workflow start org-9 demo").err


def test_a_signal_wakes_those_who_wait_for_it(operator: Operator) -> None:
    name = waiting(operator)
    other = waiting(operator, "org-2")
    line = f"workflow signal {ORG} invoice.paid o-1 --key s-1"
    assert operator.json(line, "--data", '{"amount": 7}') == {"waited": 1}
    assert of(operator, name, "ready_at <= clock_timestamp()")
    assert of(operator, other, "ready_at > clock_timestamp()")
    assert operator.json(line) == {"waited": 0}
    assert operator.value("SELECT payload FROM fw_workflow_signals") == {"amount": 7}
    assert "kept" in operator.run(f"workflow signal {ORG} invoice.paid o-2").err


def test_executions_are_listed_the_latest_first_and_by_what_they_are(operator: Operator) -> None:
    old = execution(operator, "completed", age=300)
    failed = dead(operator, error="HTTP_500: ada@example.com was refused", age=200)
    other = dead(operator, "org-2", error="TIME_LIMIT: too long", age=100, workflow="slow")
    new = execution(operator, age=10)
    assert ids(operator.json("workflow list")) == [new, other, failed, old]
    assert ids(operator.json(f"workflow list --org {ORG}")) == [new, failed, old]
    assert ids(operator.json("workflow list --status failed")) == [other, failed]
    assert ids(operator.json("workflow list --error http_500")) == [failed]
    assert ids(operator.json("workflow list --rule slow")) == [other]
    assert ids(operator.json("workflow list --since 150s")) == [new, other]
    limited = operator.run("workflow list --limit 2 -o json")
    assert ids(limited.rows) == [new, other]
    assert "there are more" in limited.err
    assert "ada@example.com" not in operator.run("workflow list").out
    groups = operator.json("workflow list --group")
    assert {(row["status"], row["workflow"], row["code"], row["count"]) for row in groups} == {
        ("completed", "demo", None, 1),
        ("failed", "demo", "HTTP_500", 1),
        ("failed", "slow", "TIME_LIMIT", 1),
        ("queued", "demo", None, 1),
    }
    assert operator.json("workflow list --org nobody") == []


def test_an_execution_of_a_rule_is_listed_by_the_rules_name(operator: Operator) -> None:
    enable(operator)
    rule(operator, "greet")
    rule(operator, "greet", "org-2")
    started = operator.json(f"workflow start {ORG} greet")["executionId"]
    assert ids(operator.json(f"workflow list --org {ORG} --rule greet")) == [started]
    (row,) = operator.json("workflow list --rule greet")
    assert (row["workflow"], row["version"]) == ("greet", 1)


def test_an_execution_is_shown_with_every_attempt(operator: Operator) -> None:
    name = execution(operator, "failed", error="HTTP_500: bob@example.com", given={"email": "bob@example.com"})
    step(operator, name, "charge", 1, 2, "failed", error="HTTP_500: bob@example.com")
    step(operator, name, "charge", 7, 8, "failed", attempt=2, error="HTTP_500: no", output={"final": True})
    execution(operator, "completed", parent=name)
    shown = operator.json(f"workflow show {name}")
    assert [(one["step"], one["attempt"], one["status"], one["milliseconds"]) for one in shown["steps"]] == [
        ("charge", 1, "failed", 1000),
        ("charge", 2, "failed", 1000),
    ]
    assert (shown["leaseToken"], len(shown["children"])) == (7, 1)
    assert "bob@" not in json.dumps(shown)
    table = operator.run(f"workflow show {name}").out
    assert "charge (attempt 2)" in table
    assert "next attempt after 5.0 s" in table
    assert "bob@" not in table
    revealed = operator.json(f"workflow show {name} --reveal")
    assert revealed["input"] == {"email": "bob@example.com"}
    assert "bob@example.com" in operator.run(f"workflow show {name} --reveal").out
    assert operator.run("workflow show 00000000-0000-0000-0000-000000000000").code == ExitCode.NOT_FOUND
    assert operator.run("workflow show nonsense").code == ExitCode.USAGE


def test_what_an_execution_waits_for_is_shown(operator: Operator) -> None:
    name = waiting(operator)
    operator.database.execute("UPDATE fw_workflow_executions SET ready_at = 'infinity'")
    shown = operator.json(f"workflow show {name}")
    assert shown["ready"] is None
    assert shown["waitsFor"] == [{"step": "paid", "event": "invoice.paid", "correlation": "o-1"}]
    assert "waiting for invoice.paid of o-1" in operator.run(f"workflow show {name}").out


def test_the_lease_of_one_that_is_at_work_is_shown(operator: Operator) -> None:
    name = execution(operator, "running", ready=25)
    assert operator.json(f"workflow show {name}")["leaseUntil"]
    assert "at work at worker-1; its lease ends in 2" in operator.run(f"workflow show {name}").out
    lost = execution(operator, "running", ready=-90)
    assert "its lease ended 1 min" in operator.run(f"workflow show {lost}").out


def test_rules_are_listed_shown_and_switched(operator: Operator) -> None:
    rule(operator, "greet", trigger="lead.created")
    rule(operator, "greet", "org-2")
    assert [row["organizationId"] for row in operator.json("workflow rules list")] == [ORG, "org-2"]
    shown = operator.json(f"workflow rules show greet --org {ORG}")
    assert (shown["trigger"], shown["definition"]) == ("lead.created", {"name": "greet", "steps": STEPS})
    assert [one["version"] for one in shown["versions"]] == [1]
    assert operator.run(f"workflow rules show greet --org {ORG} --version 2").code == ExitCode.NOT_FOUND
    assert operator.json(f"workflow rules deactivate greet --org {ORG}")["active"] is False
    assert operator.run(f"workflow start {ORG} greet").code == ExitCode.NOT_FOUND
    assert operator.json(f"workflow rules activate greet --org {ORG}")["active"] is True
    assert operator.run(f"workflow start {ORG} greet").code == ExitCode.OK
    assert operator.run(f"workflow rules activate none --org {ORG}").code == ExitCode.NOT_FOUND


def test_dead_letters_are_listed_with_what_their_executions_are_now(operator: Operator) -> None:
    first, second = dead(operator, error="X: ada@example.com"), dead(operator, "org-2")
    operator.database.execute("SELECT pgmq.send('workflow_dlq', '{\"execution_id\": \"by hand\"}')")
    rows = operator.json("workflow dlq")
    assert ids(rows) == ["by hand", second, first]
    assert (rows[1]["status"], rows[1]["workflow"], rows[0]["status"]) == ("failed", "demo", None)
    assert "ada@" not in json.dumps(rows)
    assert ids(operator.json("workflow dlq --org org-2")) == [second]
    assert "there are more" in operator.run("workflow dlq --limit 1").err


def test_dead_letters_are_among_those_of_all_queues(operator: Operator) -> None:
    first = dead(operator, error="HTTP_500: ada@example.com")
    dead(operator, "org-2", error="HTTP_500: again")
    dead(operator, error="TIME_LIMIT: too long")
    rows = operator.json("dlq")
    assert [(row["queue"], row["code"], row["count"]) for row in rows] == [
        ("workflow_execution_queue", "HTTP_500", 2),
        ("workflow_execution_queue", "TIME_LIMIT", 1),
    ]
    assert (rows[0]["sample"], rows[0]["error"]) == (first, "HTTP_500: ***@example.com")
