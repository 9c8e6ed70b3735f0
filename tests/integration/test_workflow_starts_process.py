"""Workflows started by events-workers as the processes they are, of which one is killed."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from rule_files import rules_file
from worker_suite import Process, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from psycopg import Connection

AGGREGATES, EACH = 20, 15
TRACE = "0af7651916cd43dd8448eb211c80319c"
INSERT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
VALUES (%s, 'thing.moved', 'thing', %s, 't-1', %s, %s)
"""
RULE = """
WITH rule AS (
    INSERT INTO fw_workflow_rules (organization_id, name, trigger_event) VALUES ('t-1', %s, %s) RETURNING id
)
INSERT INTO fw_workflow_definitions SELECT id, 1, %s FROM rule
"""
ORDER = """
SELECT input->'event'->>'aggregateId', (input->'payload'->>'step')::int
  FROM fw_workflow_executions JOIN fw_workflow_rules AS rule ON rule.id = rule_id
 WHERE rule.name = %s
 ORDER BY 1, fw_workflow_executions.created_at
"""
STEPS = [{"id": "paid", "wait_for_event": {"event": "thing.moved", "correlation": "input.event.aggregateId"}}]


@pytest.fixture
def database(database_url: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def start(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Any]:
    processes: list[Process] = []
    rules = rules_file(tmp_path, ["{name: all, event: 'thing.*', workflow: {start: called}}"])

    def started() -> Process:
        environment = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "EVENT_RULES_FILE": str(rules),
            # A killed worker's jobs and partitions are found soon.
            "QUEUE_LOCK_DURATION_MS": "1000",
            "QUEUE_STALLED_INTERVAL_MS": "200",
        }
        processes.append(Process("events_worker", environment, tmp_path / f"{len(processes)}.log"))
        return processes[-1].ready()

    yield started
    for process in processes:
        process.end()


def save_rule(database: Connection[Any], name: str, event: str | None, trigger: dict[str, Any] | None = None) -> None:
    database.execute(RULE, [name, event, json.dumps({"name": name, "trigger": trigger, "steps": STEPS})])


def commit(database: Connection[Any], aggregate: str, step: int, metadata: dict[str, Any] | None = None) -> str:
    event_id, payload = str(uuid4()), json.dumps({"step": step})
    database.execute(INSERT, [event_id, aggregate, payload, json.dumps(metadata or {})])
    return event_id


def count(database: Connection[Any], what: str) -> int:
    row = database.execute(f"SELECT count(*) FROM {what}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_each_event_starts_its_workflows_once_and_in_order_though_a_worker_is_killed(
    database: Connection[Any], start: Any
) -> None:
    save_rule(database, "called", None)
    save_rule(database, "own", "thing.*", {"event": "thing.*", "when": "payload.step >= 0"})
    doomed, survivor = start(), start()
    with database.transaction():
        for number in range(EACH):
            for aggregate in range(AGGREGATES):
                commit(database, f"a-{aggregate}", number)
    wait_for(lambda: count(database, "fw_workflow_executions") > AGGREGATES)
    doomed.kill()
    pending = "domain_event_outbox WHERE processed_at IS NULL OR NOT receipted"
    wait_for(lambda: not count(database, pending) and not count(database, "domain_event_under_way"), within=60)
    for name in ("called", "own"):
        rows = database.execute(ORDER, [name]).fetchall()
        assert len(rows) == AGGREGATES * EACH
        for _, steps in groupby(rows, key=lambda row: row[0]):
            assert [step for _, step in steps] == list(range(EACH))
    assert count(database, "fw_workflow_signals") == AGGREGATES * EACH
    assert count(database, "pgmq.q_workflow_execution_queue") == 2 * AGGREGATES * EACH
    commit(database, "another", 1)
    wait_for(lambda: count(database, "fw_workflow_executions") == 2 * (AGGREGATES * EACH + 1))
    wait_for(lambda: survivor.metric("intelliflow_workflow_event_starts_total") >= 2)
    assert survivor.metric("intelliflow_workflow_event_signals_total") > 0


def test_a_start_carries_its_trace_and_wakes_whoever_runs_workflows(database: Connection[Any], start: Any) -> None:
    save_rule(database, "called", None)
    start()
    database.execute("LISTEN workflow_executions")
    commit(database, "a", 1, {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    heard = next(database.notifies(timeout=20), None)
    assert heard is not None
    assert heard.channel == "workflow_executions"
    # Told after the commit.
    row = database.execute("SELECT trace FROM fw_workflow_executions").fetchone()
    assert row is not None
    assert json.loads(row[0])["traceparent"].split("-")[1] == TRACE
