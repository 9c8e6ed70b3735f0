"""`intelliflow doctor` finds what is wrong with workflows, and what it says helps."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from command_line import operator
from workflow_rows import ORG, dead, enable, execution, of, rule

if TYPE_CHECKING:
    from command_line import Operator

__all__ = ["operator"]

OWN = "INSERT INTO domain_event_partition VALUES (0, 'here:1', 1, now() + interval '1 hour')"
ANNOUNCE = "INSERT INTO fw_workflow_code (workflow, version) VALUES ('demo', 1)"
LONG_AGO = -700.0


def attention(operator: Operator) -> dict[str, Any]:
    operator.database.execute(f"{OWN} ON CONFLICT DO NOTHING")
    said = operator.run("doctor -o json")
    return {row["check"]: row for row in said.rows if row["status"] == "attention"}


def follow(operator: Operator, remedy: str, *more: str) -> int:
    """Run the first command that a remedy names."""
    (command, *_) = re.findall(r"`intelliflow (.+?)`", remedy)
    return operator.run("", *shlex.split(command), *more).code


def test_workflows_that_are_well_need_nothing(operator: Operator) -> None:
    operator.database.execute(ANNOUNCE)
    enable(operator)
    for status in ("queued", "running", "waiting", "retry_pending", "completed", "failed", "cancelled"):
        execution(operator, status, ready=-60, age=3600)
    assert attention(operator) == {}


def test_a_missing_schedule_matters_once_something_waits_for_it(operator: Operator) -> None:
    operator.database.execute(ANNOUNCE)
    enable(operator)
    operator.database.execute("UPDATE cron.job SET active = false")
    assert attention(operator) == {}
    execution(operator)
    found = attention(operator)
    assert set(found) == {"workflow schedule"}
    operator.database.execute(found["workflow schedule"]["remedy"].split("`")[1])
    assert attention(operator) == {}


def test_what_waits_for_an_organisation_that_is_off_is_named(operator: Operator) -> None:
    operator.database.execute(ANNOUNCE)
    execution(operator, org="org-off", ready=LONG_AGO)
    found = attention(operator)
    assert set(found) == {"workflow organisations"}
    assert follow(operator, found["workflow organisations"]["remedy"]) == 0
    assert set(attention(operator)) == {"workflows"}
    operator.run("workflow pause org-off --reason x")
    found = attention(operator)
    assert set(found) == {"workflow organisations"}
    assert follow(operator, found["workflow organisations"]["remedy"]) == 0
    assert set(attention(operator)) == {"workflows"}


def test_leases_that_nobody_takes_over_and_work_that_nobody_does_are_named(operator: Operator) -> None:
    operator.database.execute(ANNOUNCE)
    enable(operator)
    lost = execution(operator, "running", ready=LONG_AGO)
    execution(operator, "retry_pending", ready=LONG_AGO)
    found = attention(operator)
    assert set(found) == {"workflow leases", "workflows"}
    assert lost in found["workflow leases"]["remedy"]
    assert follow(operator, found["workflow leases"]["remedy"]) == 0
    assert follow(operator, found["workflows"]["remedy"]) == 0
    assert ORG in found["workflows"]["remedy"]


def test_dead_letters_are_counted(operator: Operator) -> None:
    name = dead(operator)
    dead(operator)
    operator.database.execute(
        "UPDATE pgmq.q_workflow_dlq SET enqueued_at = now() - interval '2 hours' WHERE msg_id = 1"
    )
    found = attention(operator)
    assert found["workflow dead letters"]["found"] == "2 dead letters, 1 of the last hour"
    assert follow(operator, found["workflow dead letters"]["remedy"]) == 0
    assert of(operator, name) == "failed"


def test_workflows_that_no_worker_has_are_named(operator: Operator) -> None:
    execution(operator, workflow="order.lost")
    execution(operator, "completed", workflow="order.old")
    rule(operator, "wrapped")
    operator.database.execute("""UPDATE fw_workflow_definitions SET definition = '{"workflow": "order.fulfil"}'""")
    found = attention(operator)
    assert set(found) == {"workflow code"}
    assert "order.fulfil (0 wait for it), no worker has had order.lost (1" in found["workflow code"]["found"]
    operator.database.execute("UPDATE fw_workflow_rules SET active = false")
    found = attention(operator)
    assert follow(operator, found["workflow code"]["remedy"], "--apply") == 0
    assert attention(operator) == {}
