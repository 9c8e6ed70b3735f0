"""Organisations' rules for tests, and what has been started by them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from events_worker.store import WorkflowStore
from events_worker.workflows import Workflows
from worker_runtime.metrics import WorkflowStartMetrics

if TYPE_CHECKING:
    from events_worker.store import Transactions

RULE = """
INSERT INTO fw_workflow_rules (organization_id, name, trigger_event) VALUES ($1, $2, $3)
    ON CONFLICT (organization_id, name) DO UPDATE SET trigger_event = excluded.trigger_event,
       current_version = fw_workflow_rules.current_version + 1
RETURNING id, current_version
"""
DEFINITION = "INSERT INTO fw_workflow_definitions (rule_id, version, definition) VALUES ($1, $2, $3)"
STEPS = [{"id": "rest", "wait": {"seconds": 1}}]


def workflows_through(transactions: Transactions, registry: CollectorRegistry | None = None) -> Workflows:
    """Build what starts workflows, with nobody to be woken up."""
    metrics = WorkflowStartMetrics(registry or CollectorRegistry())
    return Workflows(WorkflowStore(transactions), metrics, lambda: None)


async def save_rule(
    connection: Any,
    name: str,
    event: str | None = None,
    when: str | None = None,
    *,
    organization: str = "t-1",
    steps: list[dict[str, Any]] | None = None,
) -> None:
    """Save the next version of a rule, as whoever edits rules does."""
    trigger = {"event": event} | ({"when": when} if when else {}) if event else None
    definition = {"name": name, "trigger": trigger, "steps": steps or STEPS}
    async with connection.transaction():
        row = await connection.fetchrow(RULE, organization, name, event)
        await connection.execute(DEFINITION, row["id"], row["current_version"], json.dumps(definition))


async def executions(connection: Any) -> list[dict[str, Any]]:
    """Return what has been started, in order, each with its rule's name."""
    rows = await connection.fetch(
        "SELECT one.*, rule.name FROM fw_workflow_executions AS one LEFT JOIN fw_workflow_rules AS rule"
        " ON rule.id = one.rule_id ORDER BY one.created_at, rule.name"
    )
    return [dict(row) | {"input": json.loads(row["input"])} for row in rows]


async def signals(connection: Any) -> list[tuple[str, str, str, Any]]:
    """Return the signals that are kept: organisation, event, correlation and payload."""
    rows = await connection.fetch(
        "SELECT organization_id, event_name, correlation, payload FROM fw_workflow_signals ORDER BY id"
    )
    return [(*row[:3], json.loads(row[3])) for row in rows]
