"""`intelliflow person` finds and erases what workflows were given, what they came to, and what they were told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from command_line import operator
from workflow_rows import ORG, dead, execution, of, rule, step, waiting

if TYPE_CHECKING:
    from command_line import Operator

__all__ = ["operator"]

ADA = "ada@example.com"
LEAD = {"email": ADA, "firstName": "Ada", "score": 1}
FIND, ERASE = f"person find --email {ADA}", f"person erase --email {ADA} --apply --by ann"


def counts(rows: Any, what: str = "found") -> dict[str, int]:
    return {row["place"]: row[what] for row in rows if row[what]}


def told(operator: Operator, correlation: str, key: str | None = None) -> None:
    operator.database.execute(
        "SELECT fw_workflow_signal(%s, 'lead.replied', %s, %s, %s)", [ORG, correlation, f'"{ADA}"', key]
    )


def test_everything_of_a_person_is_found_and_erased_from_what_is_over(operator: Operator) -> None:
    name = dead(operator, error=f"SMTP_550: {ADA} is gone", given={"event": LEAD})
    step(operator, name, "greet", 1, 2, output=LEAD)
    step(operator, name, "tell", 2, 3, "failed", error=f"SMTP_550: {ADA} is gone")
    keyed = execution(operator, "completed")
    operator.database.execute(
        "UPDATE fw_workflow_executions SET idempotency_key = %s WHERE id = %s", [f"x-{ADA}", keyed]
    )
    operator.database.execute("UPDATE fw_workflow_executions SET idempotency_key = %s WHERE id = %s", [ADA, keyed])
    told(operator, ADA, key=ADA)
    operator.database.execute("SELECT pgmq.archive('workflow_dlq', msg_id) FROM pgmq.q_workflow_dlq")
    dead(operator, error=f"X: {ADA}")
    other = execution(operator, "completed", given={"email": "x" + ADA})

    expected = {
        "fw_workflow_executions": 3,
        "fw_workflow_steps": 2,
        "fw_workflow_signals": 2,
        "pgmq.q_workflow_dlq": 1,
        "pgmq.a_workflow_dlq": 1,
    }
    assert counts(operator.json(FIND)) == expected
    assert counts(operator.json(f"{FIND} --tenant {ORG}")) == expected
    assert counts(operator.json(f"{FIND} --tenant org-2")) == {}
    erased = operator.run(f"{ERASE} -o json")
    assert (erased.code, counts(erased.rows, "erased")) == (0, expected)
    assert operator.json(FIND) == []
    assert of(operator, name, "input") == {"event": {"email": "erased", "score": 1, "firstName": "erased"}}
    assert of(operator, name) == "failed"
    assert of(operator, keyed, "idempotency_key") is None
    assert of(operator, other, "input") == {"email": "x" + ADA}
    assert operator.value("SELECT message->>'error' FROM pgmq.a_workflow_dlq") == "SMTP_550: erased is gone"
    assert operator.value("SELECT correlation FROM fw_workflow_signals") == "erased"


def test_what_is_not_over_is_left_and_reported(operator: Operator) -> None:
    name = execution(operator, given=LEAD)
    step(operator, name, "load", 1, 2, output=LEAD)
    waits = waiting(operator)
    operator.database.execute("UPDATE fw_workflow_waits SET event_name = 'lead.replied', correlation = %s", [ADA])
    told(operator, ADA)

    said = operator.run(f"{ERASE} -o json")

    assert said.code == 4
    left = {"fw_workflow_executions": 1, "fw_workflow_steps": 1, "fw_workflow_signals": 1, "fw_workflow_waits": 1}
    assert counts(said.rows, "left") == left
    assert of(operator, name, "input") == LEAD
    operator.run(f"workflow cancel {name} {waits} --apply")
    assert operator.run(ERASE).code == 0
    assert operator.json(FIND) == []


def test_who_stands_in_a_definition_is_reported(operator: Operator) -> None:
    name = rule(operator)
    definition = {"name": "greet", "steps": [{"id": "a", "set": {"to": f"'{ADA}'"}}]}
    operator.database.execute(
        "UPDATE fw_workflow_definitions SET definition = %s WHERE rule_id = %s", [Jsonb(definition), name]
    )
    assert counts(operator.json(FIND)) == {"fw_workflow_definitions": 1}
    assert counts(operator.json(f"{FIND} --tenant org-2")) == {}
    assert counts(operator.run(f"{ERASE} -o json").rows, "left") == {"fw_workflow_definitions": 1}
