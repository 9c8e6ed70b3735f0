"""The page on starting workflows: its SQL, its rules, its file for Node, and what it says of triggers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import psycopg
import pytest
import yaml

from events_worker.context import HandlerContexts
from events_worker.effects import PlannedSignal, PlannedStart
from events_worker.handlers.workflows import OrganizationWorkflows
from events_worker.store import Transactions
from interop.node_packages import node_packages
from rule_files import EVENT_ID, effects, event, rules_in
from worker_runtime.outcome import Done
from started_workflows import workflows_through

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "start-a-workflow.md").read_text()
EXAMPLES = ROOT / "docs" / "how-to" / "examples"
PLACE = """
import { createRequire } from 'node:module';
const [packages, module, connectionString] = process.argv.slice(1);
const { Client } = createRequire(`${packages}/`)('pg');
const { placeOrder } = await import(module);
const client = new Client({ connectionString });
await client.connect();
for (const [id, end] of [['o-1', 'ROLLBACK'], ['o-2', 'COMMIT']]) {
  await client.query('BEGIN');
  console.log(await placeOrder(client, { id, total: 5, tenantId: 'tenant-1' }));
  await client.query(end);
}
await client.end();
"""


def fenced(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def database(database_url: str) -> Iterator[Connection[Any]]:
    """A database in which the page's workflow has been saved."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for _ in range(2):
            connection.execute((EXAMPLES / "order-followup.sql").read_bytes())
        yield connection


def started(database: Connection[Any]) -> list[tuple[Any, ...]]:
    return database.execute(
        "SELECT id::text, status, last_error, input, idempotency_key FROM fw_workflow_executions ORDER BY created_at"
    ).fetchall()


def test_the_page_shows_the_files_as_they_are(database: Connection[Any]) -> None:
    assert fenced("js") == [(EXAMPLES / "start_workflow.mjs").read_text()]
    (saved,) = database.execute("SELECT definition FROM fw_workflow_definitions").fetchall()
    assert saved[0] == yaml.safe_load(fenced("yaml")[0])


def test_its_sql_starts_and_signals_once(database: Connection[Any]) -> None:
    for _ in range(2):
        for block in fenced("sql"):
            database.execute(block.encode())
    ((_, status, _, given, key),) = started(database)
    assert (status, given, key) == ("queued", {"orderId": "order-4711"}, "order-4711")
    signals = database.execute("SELECT event_name, correlation, payload FROM fw_workflow_signals").fetchall()
    assert signals == [("invoice.paid", "order-4711", {"amount": 250})]
    with pytest.raises(psycopg.errors.NoDataFound, match="organisation tenant-1 has no active workflow nothing"):
        database.execute("SELECT fw_workflow_start('tenant-1', 'nothing')")


def test_its_rules_start_and_signal(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(fenced("yaml")[1])
    (start,) = effects(rules_in(rules), event("order.created", orderId="o-1", total=150))
    assert isinstance(start, PlannedStart)
    assert (start.workflow, start.given, start.key) == ("order-followup", {"orderId": "o-1", "by": None}, "o-1")
    assert effects(rules_in(rules), event("order.created", orderId="o-1", total=50)) == []
    rules.write_text(fenced("yaml")[2])
    (signal,) = effects(rules_in(rules), event("invoice.settled", orderId="o-1", amount=150))
    assert isinstance(signal, PlannedSignal)
    assert (signal.event, signal.correlation, signal.data) == ("invoice.paid", "o-1", {"amount": 150})


@pytest.mark.needs("node", "npm")
def test_its_file_for_node_starts_with_the_transaction_or_not_at_all(
    database: Connection[Any], database_url: str
) -> None:
    database.execute("CREATE TABLE orders (id text PRIMARY KEY, total numeric)")
    module = (EXAMPLES / "start_workflow.mjs").as_uri()
    command = ["node", "--input-type=module", "-e", PLACE, str(node_packages()), module, database_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [row[0] for row in database.execute("SELECT id FROM orders").fetchall()] == ["o-2"]
    ((execution, _, _, given, key),) = started(database)
    assert done.stdout.split()[1:] == [execution]
    assert (given, key) == ({"orderId": "o-2"}, "o-2")


@pytest.mark.parametrize(
    ("payload", "end"),
    [
        ({"total": 150}, [("queued", None)]),
        ({"total": 50}, []),
        ({}, [("failed", "INVALID_TRIGGER: when: `payload.total > 100`: there is no field total")]),
    ],
)
async def test_its_trigger_is_asked(
    database: Connection[Any], database_url: str, payload: dict[str, Any], end: list[tuple[str, str | None]]
) -> None:
    of = event("order.created", **payload).model_copy(update={"tenant_id": "tenant-1"})
    async with Transactions(database_url, 1) as transactions:
        handler = OrganizationWorkflows(workflows_through(transactions))
        context = HandlerContexts(Mock(), Mock()).of(of, handler.name, receipts=False)
        assert isinstance(await handler.handle(of, context), Done)
    assert [row[1:3] for row in started(database)] == end
    for _, _, _, given, _ in started(database):
        assert given.keys() == {"event", "payload", "metadata"}
        assert (given["event"]["eventId"], given["payload"]) == (EVENT_ID, payload)


def test_whoever_waits_for_its_event_is_told(database: Connection[Any]) -> None:
    assert database.execute("SELECT * FROM fw_workflow_awaited").fetchall() == [("tenant-1", "invoice.paid")]
