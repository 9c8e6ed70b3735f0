"""A claim costs what it takes, however many executions, organisations and sleepers there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from worker_runtime.postgres import Database
from workflow_harness import Desk
from workflow_worker.store.claims import CLAIM, CLAIMING, READY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SLOTS = 60
ADD = """
INSERT INTO fw_workflow_executions (organization_id, workflow, status, ready_at)
SELECT $1 || organisation, 'demo', $4, now() + make_interval(secs => $5)
  FROM generate_series(1, $2::int) AS organisation, generate_series(1, $3::int)
"""
SETTINGS = """
INSERT INTO fw_module_settings (organization_id, fw_execution_worker_enabled, fw_worker_batch_size)
SELECT $1 || organisation, $3, 50 FROM generate_series(1, $2::int) AS organisation
"""
# Entries of indexes and rows that the statements of this connection have met.
MET = """
SELECT coalesce(sum(pg_stat_get_xact_tuples_returned(oid) + pg_stat_get_xact_tuples_fetched(oid)), 0)::bigint
  FROM pg_class WHERE relkind IN ('r', 'i')
   AND relname ~ '^(fw_workflow_executions|fw_module_settings|q_workflow_execution_queue)'
"""


class Meter:
    """Counts what its claims read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def met(self, *, look: bool = True) -> tuple[int, int]:
        """Claim, and return how many executions that brought and how many entries it read."""
        async with self._database.transaction() as connection:
            turn: tuple[Any, ...] = (SLOTS, SLOTS, [], "")
            ready = await connection.fetch(READY, *turn, look)
            near = [list(column) for column in zip(*ready, strict=True)]
            rows = await connection.fetch(CLAIM, *turn, "worker-1", True, *near) if ready else []  # noqa: FBT003
            return len(rows), await connection.fetchval(MET)


async def fill(
    desk: Desk, name: str, organisations: int, each: int, *, enabled: bool = True, sleeping: bool = False
) -> None:
    await desk.rows(SETTINGS, name, organisations, enabled)
    status, seconds = ("waiting", 3600) if sleeping else ("queued", 0)
    await desk.rows(ADD, name, organisations, each, status, seconds)


@pytest.fixture
async def desk(database_url: str) -> Desk:
    return Desk(database_url)


@pytest.fixture
async def meter(desk: Desk) -> AsyncIterator[Meter]:
    async with Database(desk.url, settings=CLAIMING) as database:
        yield Meter(database)


@pytest.mark.parametrize("statistics", ["old", "new"])
async def test_backlogs_are_not_read_through(desk: Desk, meter: Meter, statistics: str) -> None:
    if statistics == "old":
        # As after a quiet night: the planner believes the tables to be nearly empty.
        await fill(desk, "first-", 1, 1)
        await desk.rows("ANALYZE")
    await fill(desk, "large-", 5, 6_000)
    if statistics == "new":
        await desk.rows("VACUUM ANALYZE")
    taken, met = await meter.met()
    assert taken > SLOTS / 2
    assert met < 50 * SLOTS


async def test_organisations_that_are_off_are_not_looked_at(desk: Desk, meter: Meter) -> None:
    await fill(desk, "off-", 1_000, 2, enabled=False)
    await fill(desk, "paused-", 1_000, 2)
    await desk.rows("UPDATE fw_module_settings SET fw_worker_paused_at = now() WHERE organization_id LIKE 'paused-%'")
    await fill(desk, "small-", 1, 1)
    await desk.rows("VACUUM ANALYZE")
    taken, met = await meter.met()
    assert taken == 1
    assert met < 200


async def test_of_many_active_organisations_only_the_next_are_looked_at(desk: Desk, meter: Meter) -> None:
    await fill(desk, "org-", 3_000, 3)
    await desk.rows("VACUUM ANALYZE")
    taken, met = await meter.met()
    assert taken == SLOTS
    assert met < 50 * SLOTS


async def test_while_no_message_is_due_sleepers_cost_nothing(desk: Desk, meter: Meter) -> None:
    await fill(desk, "asleep-", 1_000, 2, sleeping=True)
    await desk.rows("VACUUM ANALYZE")
    taken, met = await meter.met(look=False)
    assert taken == 0
    assert met < 10


async def test_a_purged_queue_keeps_nothing_that_is_ready_from_being_found(desk: Desk, meter: Meter) -> None:
    await fill(desk, "org-", 2, 3)
    await desk.rows("SELECT pgmq.purge_queue('workflow_execution_queue')")
    assert (await meter.met(look=False))[0] == 0
    assert (await meter.met())[0] == 6
