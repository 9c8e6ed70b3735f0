"""Executions, steps and messages as workers leave them, for tests of whoever looks at them or changes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from command_line import Operator

ORG = "org-1"
STEPS = [{"id": "total", "set": {"total": "input.a"}}]
ENABLE = "INSERT INTO fw_module_settings (organization_id, fw_execution_worker_enabled) VALUES (%s, true)"
RULE = "INSERT INTO fw_workflow_rules (organization_id, name, trigger_event) VALUES (%s, %s, %s) RETURNING id"
DEFINITION = "INSERT INTO fw_workflow_definitions (rule_id, version, definition) VALUES (%s, 1, %s)"
EXECUTION = """
INSERT INTO fw_workflow_executions (id, organization_id, workflow, workflow_version, status, input, last_error,
            created_at, started_at, completed_at, ready_at, parent_id, lease_owner, lease_token, total_attempts)
VALUES (%(id)s, %(org)s, %(workflow)s, 1, %(status)s, %(input)s, %(error)s, now() - %(age)s * interval '1 second',
        CASE WHEN %(status)s <> 'queued' THEN now() - %(age)s * interval '1 second' END,
        CASE WHEN %(status)s IN ('completed', 'failed', 'cancelled') THEN now() END,
        now() + %(ready)s * interval '1 second', %(parent)s,
        CASE WHEN %(status)s = 'running' THEN 'worker-1' END, 7, 1)
"""
STEP = """
INSERT INTO fw_workflow_steps (execution_id, step, attempt, kind, status, output, error, started_at, finished_at, round)
SELECT id, %(step)s, %(attempt)s, %(kind)s, %(status)s, %(output)s, %(error)s,
       created_at + %(begins)s * interval '1 second', created_at + %(ends)s * interval '1 second', %(round)s
  FROM fw_workflow_executions WHERE id = %(id)s
"""
WAIT = """
INSERT INTO fw_workflow_waits (execution_id, step, organization_id, event_name, correlation)
SELECT id, 'paid', organization_id, 'invoice.paid', 'o-1' FROM fw_workflow_executions WHERE id = %s
"""
DEAD = """
SELECT pgmq.send('workflow_dlq', jsonb_build_object('execution_id', id, 'organization_id', organization_id,
       'workflow', workflow, 'attempt', 5, 'total_attempts', total_attempts, 'error', last_error, 'failed_at', now(),
       'original_msg_id', msg_id))
  FROM fw_workflow_executions WHERE id = %s
"""
MANY = """
INSERT INTO fw_workflow_executions (organization_id, workflow, workflow_version, status, last_error, created_at,
                                    completed_at, ready_at)
SELECT %(org)s, 'demo', 1, %(status)s, 'X: no', now() - number * interval '1 ms',
       CASE WHEN %(status)s IN ('completed', 'failed', 'cancelled') THEN now() END, now()
  FROM generate_series(1, %(count)s) AS number
"""


def enable(operator: Operator, org: str = ORG) -> None:
    operator.database.execute(ENABLE, [org])


def rule(operator: Operator, name: str = "greet", org: str = ORG, trigger: str | None = None) -> UUID:
    rule_id = operator.value(RULE, org, name, trigger)
    operator.database.execute(DEFINITION, [rule_id, Jsonb({"name": name, "steps": STEPS})])
    return UUID(str(rule_id))


def execution(
    operator: Operator,
    status: str = "queued",
    org: str = ORG,
    *,
    workflow: str = "demo",
    error: str | None = None,
    age: float = 60.0,
    ready: float = 0.0,
    given: Any = None,
    parent: str | None = None,
) -> str:
    name = str(uuid4())
    row = {"id": name, "org": org, "workflow": workflow, "status": status, "error": error, "age": age, "ready": ready}
    operator.database.execute(EXECUTION, row | {"input": Jsonb(given or {}), "parent": parent})
    return name


def dead(operator: Operator, org: str = ORG, error: str = "HTTP_500: no", **columns: Any) -> str:
    """Add an execution that has failed, with its dead letter."""
    name = execution(operator, "failed", org, error=error, **columns)
    operator.database.execute(DEAD, [name])
    return name


def step(
    operator: Operator,
    execution_id: str,
    name: str,
    begins: float,
    ends: float | None,
    status: str = "completed",
    *,
    attempt: int = 1,
    kind: str = "http",
    output: Any = None,
    error: str | None = None,
    round: int = 0,  # noqa: A002  as the column
) -> None:
    row = {"id": execution_id, "step": name, "attempt": attempt, "kind": kind, "status": status, "error": error}
    times = {"begins": begins, "ends": ends, "round": round}
    operator.database.execute(STEP, row | times | {"output": None if output is None else Jsonb(output)})


def waiting(operator: Operator, org: str = ORG) -> str:
    """Add an execution that waits for the event invoice.paid of o-1."""
    name = execution(operator, "waiting", org, ready=3600)
    awaited = {"event": "invoice.paid", "correlation": "o-1", "until": None}
    step(operator, name, "paid", 1, None, "waiting", kind="wait_for_event", output=awaited)
    operator.database.execute(WAIT, [name])
    return name


def many(operator: Operator, count: int, status: str = "queued", org: str = ORG) -> None:
    operator.database.execute(MANY, {"org": org, "status": status, "count": count})


def of(operator: Operator, execution_id: str, column: str = "status") -> Any:
    return operator.value(f"SELECT {column} FROM fw_workflow_executions WHERE id = %s", execution_id)


def messages(operator: Operator, org: str = ORG, queue: str = "workflow_execution_queue") -> int:
    return int(operator.value(f"SELECT count(*) FROM pgmq.q_{queue} WHERE message->>'organization_id' = %s", org))
