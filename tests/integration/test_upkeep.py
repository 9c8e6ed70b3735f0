"""Archiving and purging: what moves, what stays, and that no sweep is a long one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from engine_harness import until
from events_worker.store import UpkeepStore
from events_worker.store.upkeep import SWEEP_BYTES, SWEEP_ROWS, Swept
from events_worker.upkeep import Upkeep
from outbox_harness import Bench, opened_bench, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

AGE = "UPDATE domain_event_outbox SET status = 'processed', processed_at = now() - interval '8 days'"
OLD = "UPDATE domain_event_outbox_archive SET created_at = now() - interval '400 days'"
# A payload that does not shrink when it is stored.
LARGE = "SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 8192)"


@pytest.fixture
async def bench(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    async with opened_bench(redis_url, database_url) as made:
        yield made


async def test_finished_events_are_archived_a_week_later_and_the_lag_is_measured(bench: Bench) -> None:
    total = SWEEP_ROWS + 100
    await bench.commit(total)
    async with bench.connected() as database, bench.instance() as instance:
        await database.execute(AGE)
        await bench.commit(3)
        await database.execute(
            "UPDATE domain_event_outbox SET created_at = now() - interval '1 minute' WHERE processed_at IS NULL"
        )
        async with running([Upkeep(UpkeepStore(instance.database), instance.metrics, every_seconds=0.05)]):
            await until(lambda: holds(database.fetchval("SELECT count(*) FROM domain_event_outbox_archive"), total))
            await until(lambda: holds(metric(instance.metrics.archived), total))
        assert await bench.count("true") == 3
        assert await database.fetchval("SELECT count(DISTINCT id) FROM domain_event_outbox_archive") == total
        assert instance.metrics.pending._value.get() == 3
        assert 60 <= instance.metrics.oldest_age._value.get() < 120
        assert await metric(instance.metrics.purged) == 0


async def test_a_sweep_is_short_however_large_the_rows_are(bench: Bench) -> None:
    ids = await bench.commit(12)
    async with bench.connected() as database, bench.instance() as instance:
        await database.execute(AGE)
        await database.execute(f"UPDATE domain_event_outbox SET payload = jsonb_build_object('text', ({LARGE}))")
        store = UpkeepStore(instance.database)
        archived = [await store.archive(7) for _ in range(3)]
        assert archived == [Swept(4, more=True), Swept(4, more=True), Swept(4, more=False)]
        await database.execute(OLD)
        assert [await store.purge(365) for _ in range(3)] == archived
        assert await bench.count("true", "domain_event_outbox_archive") == 0
    # As many as fit, and the one that does not any more.
    assert SWEEP_BYTES // (32 * 8192) + 1 == 4
    assert len(ids) == 12


async def test_one_event_larger_than_a_sweep_is_archived_all_the_same(bench: Bench) -> None:
    await bench.commit(2)
    async with bench.connected() as database, bench.instance() as instance:
        await database.execute(AGE)
        five = ", ".join(f"'{name}', ({LARGE})" for name in "abcde")
        await database.execute(f"UPDATE domain_event_outbox SET payload = jsonb_build_object({five})")
        store = UpkeepStore(instance.database)
        assert [await store.archive(7) for _ in range(2)] == [Swept(1, more=True), Swept(1, more=False)]


async def test_the_purge_takes_what_is_old_with_its_receipts_and_its_history_and_nothing_else(bench: Bench) -> None:
    old, dead, blocking, young = await bench.commit(4)
    async with bench.connected() as database, bench.instance() as instance:
        store = UpkeepStore(instance.database)
        await database.execute(AGE)
        await database.execute("UPDATE domain_event_outbox SET status = 'dead_letter' WHERE id = $1", UUID(dead))
        for event_id, blocks in ((dead, False), (blocking, True)):
            await database.execute(
                "INSERT INTO domain_event_under_way"
                " (event_id, aggregate_type, aggregate_id, aggregate_hash, finished, dead_reason, blocks)"
                " SELECT id, aggregate_type, aggregate_id, aggregate_hash, '{done}', 'GONE: it is gone', $2"
                " FROM domain_event_outbox WHERE id = $1",
                UUID(event_id),
                blocks,
            )
        for event_id in (old, young):
            await database.execute(
                "INSERT INTO domain_event_edit (event_id, verb, edited_by) VALUES ($1, 'retry', 'somebody')",
                UUID(event_id),
            )
        assert await store.archive(7) == Swept(3, more=False)
        assert await bench.under_way() == 2
        # By hand, though it holds up its aggregate.
        await database.execute("DELETE FROM domain_event_outbox WHERE id = $1", UUID(blocking))
        await database.execute(OLD)
        await database.execute(
            "UPDATE domain_event_outbox_archive SET created_at = now() - interval '9 days' WHERE id = $1", UUID(young)
        )
        assert await store.purge(365) == Swept(2, more=False)
        left = await database.fetch("SELECT id FROM domain_event_outbox_archive")
        assert {str(row["id"]) for row in left} == {blocking, young}
        assert [str(row["event_id"]) for row in await database.fetch("SELECT event_id FROM domain_event_edit")] == [
            young
        ]
        assert [str(row["event_id"]) for row in await database.fetch("SELECT * FROM domain_event_under_way")] == [
            blocking
        ]


async def test_the_purge_is_off_until_it_is_asked_for(bench: Bench) -> None:
    await bench.commit(5)
    async with bench.connected() as database, bench.instance() as instance:
        store = UpkeepStore(instance.database)
        await database.execute(AGE)
        await store.archive(7)
        await database.execute(OLD)
        async with running([Upkeep(store, instance.metrics, every_seconds=0.02)]):
            await bench.commit(7)
            await until(lambda: holds(metric(instance.metrics.pending), 7))
        assert await bench.count("true", "domain_event_outbox_archive") == 5
        async with running([Upkeep(store, instance.metrics, every_seconds=0.02, purge_days=365)]):
            await until(lambda: holds(metric(instance.metrics.purged), 5))
        assert await bench.count("true", "domain_event_outbox_archive") == 0


async def test_a_time_without_a_distance_does_not_stop_the_upkeep(bench: Bench) -> None:
    await bench.commit()
    async with bench.connected() as database, bench.instance() as instance:
        await database.execute("UPDATE domain_event_outbox SET created_at = 'infinity'")
        assert (await UpkeepStore(instance.database).lag()).seconds == 0


async def metric(gauge: Any) -> float:
    return float(gauge._value.get())


async def holds(question: Awaitable[object], answer: object) -> bool:
    return await question == answer
