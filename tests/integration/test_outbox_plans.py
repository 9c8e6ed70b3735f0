"""No statement of the relay walks through a backlog, whatever the planner believes of the tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest

from events_worker.store.outbox import CLAIM_FAR, CLAIM_NEAR
from events_worker.store.turns import END, LOOK
from worker_runtime.postgres import BY_INDEX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

BACKLOG = 20_000
BATCH = 100
# About twenty an event: looks into four indexes, and a row from one step to the next.
MOST_ROWS = 4_000
MET = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck")
ADD = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, status, processed_at)
SELECT gen_random_uuid(), 'a.b', 'a', number % $2::int, 't', CASE WHEN $3 THEN 'processed' ELSE 'pending' END,
       CASE WHEN $3 THEN now() END
  FROM generate_series(1, $1::int) AS number
"""
TAKE_ALL = """
INSERT INTO domain_event_partition (partition, owner, token, lease_until)
SELECT partition, 'here', 1, 'infinity' FROM generate_series(0, 15) AS partition
"""
CLAIM = f"20000, {BATCH}, '{{{','.join(map(str, range(16)))}}}', array_fill(1::bigint, ARRAY[16]), 16"
UNDER_WAY = "SELECT array_agg(event_id) FROM (SELECT event_id FROM domain_event_under_way LIMIT $1) AS first"
Connection = Any


async def nothing_known(database: Connection) -> None:
    """Leave the planner with its defaults."""


async def analysed_when_empty(database: Connection) -> None:
    await database.execute("VACUUM ANALYZE")


async def analysed_when_all_was_done(database: Connection) -> None:
    await database.execute(ADD, BACKLOG, BACKLOG, True)  # noqa: FBT003  a column's value
    await database.execute("VACUUM ANALYZE")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database_url)
    for name, value in BY_INDEX.items():
        await connection.execute(f"SET {name} = {value}")
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute(TAKE_ALL)
    yield connection
    await connection.close()


@pytest.mark.parametrize("aggregates", [BACKLOG, 2_000])
@pytest.mark.parametrize("belief", [nothing_known, analysed_when_empty, analysed_when_all_was_done])
async def test_claims_and_ends_meet_few_rows(database: Connection, belief: Callable[..., Any], aggregates: int) -> None:
    await belief(database)
    await database.execute(ADD, BACKLOG, aggregates, False)  # noqa: FBT003  a column's value
    assert await rows_met(database, CLAIM_NEAR, CLAIM, rows=BATCH) < MOST_ROWS
    assert await rows_met(database, CLAIM_FAR, CLAIM, rows=BATCH) < MOST_ROWS
    ids = ",".join(map(str, await database.fetchval(UNDER_WAY, BATCH)))
    assert await rows_met(database, LOOK, f"'{{{ids}}}'", rows=BATCH) < MOST_ROWS
    same = [f"array_fill({value}, ARRAY[{BATCH}])" for value in ("NULL::text", "0", "false")]
    ends = f"20000, '{{{ids}}}', {', '.join(same)}, true"
    assert await rows_met(database, END, ends, rows=1 if aggregates == BACKLOG else BATCH) < MOST_ROWS


async def rows_met(database: Connection, statement: str, arguments: str, rows: int) -> int:
    """Run a statement and return how many rows its plan handled, those it threw away included."""
    prepared = f"stated_{uuid4().hex}"
    await database.execute(f"PREPARE {prepared} AS {statement}")
    told = await database.fetchval(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE {prepared}({arguments})")
    plan = json.loads(told)[0]["Plan"]
    assert plan["Actual Rows"] == rows
    return met(plan)


def met(node: dict[str, Any]) -> int:
    """Count the rows of a plan's node, in all its loops, and of those below it."""
    here = sum(float(value) for key, value in node.items() if key in MET)
    return round(here * float(node["Actual Loops"])) + sum(met(below) for below in node.get("Plans", ()))
