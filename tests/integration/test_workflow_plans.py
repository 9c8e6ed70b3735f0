"""What an operator asks of one organisation's executions is answered by an index, however many its neighbours have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from worker_ops.workflow import executions_store
from worker_ops.workflow.executions_store import BEFORE_ALL, UNFINISHED, Selection
from worker_runtime.postgres import BY_INDEX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SHOWN, OF_ONE = 100, 1_000
MET = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
ADD = """
INSERT INTO fw_workflow_executions (organization_id, workflow, status, created_at, completed_at)
SELECT $1, 'demo', CASE WHEN number % 100 = 0 THEN 'failed' WHEN number % 100 = 1 THEN 'queued' ELSE 'completed' END,
       now() - number * interval '1 s', CASE WHEN number % 100 <> 1 THEN now() END
  FROM generate_series(1, $2::int) AS number
"""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    for name, value in BY_INDEX.items():
        await connection.execute(f"SET {name} = {value}")
    for number in range(3):
        await connection.execute(ADD, f"neighbour-{number}", 10_000)
    await connection.execute(ADD, "org-1", OF_ONE)
    yield connection
    await connection.close()


async def plan(database: Any, statement: str, *parameters: object) -> dict[str, Any]:
    """Run a statement and return what it did, as it would for the hundredth time."""
    await database.execute("SET plan_cache_mode = force_generic_plan")
    (row,) = await database.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *parameters)
    found: dict[str, Any] = json.loads(row[0])[0]["Plan"]
    return found


def nodes(of: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield of
    for part in of.get("Plans", ()):
        yield from nodes(part)


def rows_met(of: dict[str, Any]) -> int:
    """How many rows the scans looked at, loops included."""
    scans = [node for node in nodes(of) if node["Node Type"].endswith("Scan") and "Relation Name" in node]
    return sum(int(node["Actual Loops"] * sum(node.get(name, 0) for name in MET)) for node in scans)


async def test_the_latest_of_an_organisation_are_read_from_the_end_of_its_index(database: Any) -> None:
    statement, parameters = executions_store.newest(Selection("org-1"))
    found = await plan(database, statement, *parameters, SHOWN)
    assert rows_met(found) <= SHOWN
    assert "fw_workflow_executions_listed" in {node.get("Index Name") for node in nodes(found)}


async def test_the_latest_of_all_organisations_are_read_from_the_ends_of_theirs(database: Any) -> None:
    statement, parameters = executions_store.newest(Selection())
    found = await plan(database, statement, *parameters, SHOWN)
    # At most as many of each, and one look for each organisation's name.
    assert rows_met(found) <= 4 * SHOWN + 10


@pytest.mark.parametrize("statuses", [("failed",), UNFINISHED], ids=["failed", "unfinished"])
@pytest.mark.parametrize("kind", ["newest", "groups", "page"])
async def test_the_few_that_need_somebody_are_found_without_the_many_that_do_not(
    database: Any, kind: str, statuses: tuple[str, ...]
) -> None:
    statement, parameters = getattr(executions_store, kind)(Selection("org-1", statuses))
    limits: dict[str, list[object]] = {"newest": [SHOWN], "groups": [], "page": [*BEFORE_ALL]}
    await database.execute("ANALYZE fw_workflow_executions")
    found = await plan(database, statement, *parameters, *limits[kind])
    assert rows_met(found) <= 2 * OF_ONE // 100
