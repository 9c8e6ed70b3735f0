"""The physical limit: the same claims, checkpoints and settlements, a hundred executions at a time, and nothing else.

It keeps a step's result before the next step begins and fences each write by the lease, as everybody here does. It has
no tenants, retries, waits, cancelling, heartbeats or metrics. `limit.py work` is the worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import asyncpg
import uvloop

from benchmarks.workflows.effects import STEPS, step
from benchmarks.workflows.task import do

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE, LOOPS = 100, 3
POLL_SECONDS = 0.01
TABLES = """
CREATE TABLE executions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, status text NOT NULL DEFAULT 'queued', input jsonb NOT NULL,
    result jsonb, token integer NOT NULL DEFAULT 0, ready_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX executions_ready ON executions (ready_at) WHERE status IN ('queued', 'running');
CREATE TABLE steps (execution_id bigint, step integer, output jsonb, PRIMARY KEY (execution_id, step));
"""
CLAIM = """
UPDATE executions SET status = 'running', token = token + 1, ready_at = now() + interval '30 s', started_at = now()
 WHERE id = ANY (ARRAY (SELECT id FROM executions WHERE status IN ('queued', 'running') AND ready_at <= now()
                         ORDER BY ready_at LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING id, token, input
"""
KEEP = """
INSERT INTO steps (execution_id, step, output)
SELECT id, $3, output FROM unnest($1::bigint[], $2::integer[], $4::jsonb[]) AS given (id, token, output)
 WHERE EXISTS (SELECT FROM executions WHERE id = given.id AND token = given.token AND status = 'running')
"""
SETTLE = """
UPDATE executions SET status = 'completed', result = given.result
  FROM unnest($1::bigint[], $2::integer[], $3::jsonb[]) AS given (id, token, result)
 WHERE executions.id = given.id AND executions.token = given.token AND status = 'running'
"""


class LimitStarter:
    """One connection."""

    async def prepare(self) -> None:
        await self.open()
        await self._connection.execute(TABLES)

    async def open(self) -> None:
        self._connection = await asyncpg.connect(os.environ["DATABASE_URL"])

    async def start(self, inputs: Sequence[dict[str, Any]]) -> None:
        rows = [json.dumps(one) for one in inputs]
        await self._connection.execute("INSERT INTO executions (input) SELECT unnest($1::jsonb[])", rows)


async def work() -> None:
    """Several loops, so that one computes while another waits for the disk."""
    await asyncio.gather(*(loop() for _ in range(LOOPS)))


async def loop() -> None:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    while True:
        if rows := await connection.fetch(CLAIM, AT_ONCE):
            await run(connection, rows)
        else:
            await asyncio.sleep(POLL_SECONDS)


async def run(connection: Any, rows: Sequence[Any]) -> None:
    leases = [row["id"] for row in rows], [row["token"] for row in rows]
    numbers = [json.loads(row["input"])["number"] for row in rows]
    for place in STEPS:
        outputs = [await step(number, place) for number in numbers]
        await connection.execute(KEEP, *leases, place, [json.dumps(output) for output in outputs])
    await connection.execute(SETTLE, *leases, [json.dumps({"amount": 11_940})] * len(rows))


if __name__ == "__main__":
    uvloop.run(work() if "work" in sys.argv else do(LimitStarter()))
