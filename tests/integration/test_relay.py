"""From a committed row to a job, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest

from engine_harness import until
from events_worker.event import EventJob
from outbox_harness import INSERT, Bench, Instance, opened_bench
from worker_runtime.loops import StopSignal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from embedded_stack import PostgresServer, RedisServer

RETURN_SECONDS = 2.0


@pytest.fixture
async def bench(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    async with opened_bench(redis_url, database_url) as made:
        yield made


async def test_committed_events_become_jobs_in_order(bench: Bench) -> None:
    metadata = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "correlationId": "c-1"}
    ids = await bench.commit(20, payload={"leadId": "l-1", "amount": 1}, metadata=metadata)
    async with bench.relaying() as relaying:
        await until(lambda: holds(bench.waiting(), ids))
        await until(lambda: holds_at_least(relaying.metrics.published._value.get, 20))
    assert await bench.count("status = 'processed'") == 20
    job = await bench.job(ids[0])
    assert job["name"] == "lead.created"
    event = EventJob.model_validate_json(job["data"])
    assert (event.event_id, event.payload, event.metadata.correlation_id) == (
        ids[0],
        {"leadId": "l-1", "amount": 1},
        "c-1",
    )
    assert json.loads(json.loads(job["opts"])["tm"]) == {"traceparent": metadata["traceparent"]}
    row = await bench.row(ids[0])
    assert row["processed_at"] >= row["created_at"]
    assert (row["retry_count"], row["last_error"]) == (0, None)


async def test_a_full_batch_is_followed_at_once(bench: Bench) -> None:
    ids = await bench.commit(250)
    async with bench.relaying(batch_size=50, poll_seconds=60):
        await until(lambda: holds(bench.waiting(), ids))


async def test_a_claim_stops_where_its_payloads_become_too_much(bench: Bench) -> None:
    """A hundred of a megabyte at a time would cost hundreds of megabytes, and hold up the event loop for a second."""
    for _ in range(12):
        await bench.commit(payload={"noise": os.urandom(500_000).hex()})
    small = await bench.commit(20)
    async with bench.instance() as instance:
        await instance.partitions.balance()
        claims = [len(await instance.store.claim(100, instance.partitions.tokens)) for _ in range(4)]
        assert claims[0] in range(4, 10)
        assert sum(claims) == 12 + len(small)


async def test_a_transaction_that_commits_late_is_not_lost(bench: Bench) -> None:
    late = str(uuid4())
    async with bench.connected() as database, bench.relaying():
        transaction = database.transaction()
        await transaction.start()
        await database.execute(INSERT, late, "lead.created", "late", "{}", "{}")
        (early,) = await bench.commit()
        await until(lambda: holds(bench.waiting(), [early]))
        await transaction.commit()
        await until(lambda: holds(bench.waiting(), [early, late]))


async def test_what_is_rolled_back_is_not_published(bench: Bench) -> None:
    async with bench.connected() as database, bench.relaying():
        transaction = database.transaction()
        await transaction.start()
        await database.execute(INSERT, str(uuid4()), "lead.created", "none", "{}", "{}")
        await transaction.rollback()
        (kept,) = await bench.commit()
        await until(lambda: holds(bench.waiting(), [kept]))


async def test_two_relays_make_one_job_of_each_event(bench: Bench) -> None:
    ids = await bench.commit(1_000)
    options = {"batch_size": 20, "poll_seconds": 0.001}
    async with bench.relaying(**options) as one, bench.relaying(**options) as other:
        await until(lambda: holds(waiting_count(bench), 1_000))
        await until(lambda: holds(published(one, other), 1_000))
    assert sorted(await bench.waiting()) == sorted(ids)
    assert await bench.count("status = 'processed' AND retry_count = 0") == 1_000


async def test_an_event_that_can_never_be_published_is_set_aside_and_counted(bench: Bench) -> None:
    (nameless,) = await bench.commit(event_type="")
    (huge,) = await bench.commit(payload={"text": "x" * 50_000})
    (odd,) = await bench.commit(metadata=[1])
    (good,) = await bench.commit()
    async with bench.relaying() as relaying:
        await until(lambda: holds(bench.count("processed_at IS NULL"), 0))
        await until(lambda: holds(bench.waiting(), [good]))
        await until(lambda: holds_at_least(relaying.metrics.failed._value.get, 3))
    errors = [(await bench.row(event_id))["last_error"].split(":")[0] for event_id in (nameless, huge, odd)]
    assert errors == ["INVALID_EVENT", "PAYLOAD_TOO_LARGE", "INVALID_EVENT"]
    assert await bench.count("status = 'dead_letter' AND processed_at IS NOT NULL") == 3


async def test_an_event_waits_for_its_next_retry(bench: Bench) -> None:
    waiting, due = await bench.commit(2)
    async with bench.connected() as database:
        for event_id, offset in ((waiting, "1 hour"), (due, "-1 hour")):
            await database.execute(
                f"UPDATE domain_event_outbox SET next_retry_at = now() + interval '{offset}' WHERE id = $1", event_id
            )
    async with bench.relaying():
        await until(lambda: holds(bench.waiting(), [due]))
    assert await bench.count("processed_at IS NULL") == 1


async def test_times_that_python_does_not_know_do_not_stop_the_relay(bench: Bench) -> None:
    ids = await bench.commit(3)
    async with bench.connected() as database:
        for event_id, moment in zip(ids, ("infinity", "-infinity", "0044-03-15 BC"), strict=True):
            await database.execute(f"UPDATE domain_event_outbox SET created_at = '{moment}' WHERE id = $1", event_id)
    async with bench.relaying():
        await until(lambda: holds(bench.waiting(), ids))


async def test_a_stop_is_heard_while_waiting(bench: Bench) -> None:
    async with bench.relaying(poll_seconds=60):
        await until(lambda: holds(bench.count("processed_at IS NULL"), 0))
        started = time.monotonic()
    assert time.monotonic() - started < 1


async def test_redis_may_go_and_come_back(own_redis: RedisServer, database_url: str) -> None:
    async with opened_bench(own_redis.url, database_url) as bench, bench.relaying() as relaying:
        own_redis.kill()
        await until(lambda: holds_at_least(relaying.metrics.relay_errors["redis"]._value.get, 1))
        ids = await bench.commit(5)
        await until(lambda: holds_at_least(relaying.metrics.relay_errors["redis"]._value.get, 3))
        assert relaying.relay.heartbeat.age_seconds < 2
        assert await bench.count("status = 'pending' AND retry_count = 0 AND last_error IS NULL") == 5
        await asyncio.to_thread(own_redis.start)
        await until(lambda: holds(bench.waiting(), ids), within=RETURN_SECONDS)
        await until(lambda: holds(bench.count("status = 'processed'"), 5))
        assert relaying.metrics.failed._value.get() == 0


async def test_postgres_may_go_and_come_back(own_postgres: PostgresServer, redis_url: str) -> None:
    async with opened_bench(redis_url, own_postgres.url) as bench, bench.relaying() as relaying:
        first = await bench.commit(5)
        await until(lambda: holds(bench.waiting(), first))
        await asyncio.to_thread(own_postgres.kill)
        await until(lambda: holds_at_least(relaying.metrics.relay_errors["postgres"]._value.get, 2))
        assert relaying.relay.heartbeat.age_seconds < 2
        await asyncio.to_thread(own_postgres.start)
        second = await bench.commit(5)
        await until(lambda: holds(bench.waiting(), first + second), within=RETURN_SECONDS)
        await until(lambda: holds(bench.count("status = 'processed'"), 10))


async def test_a_postgres_that_falls_silent_is_noticed(own_postgres: PostgresServer, redis_url: str) -> None:
    async with (
        opened_bench(redis_url, own_postgres.url) as bench,
        bench.relaying(command_seconds=0.3) as relaying,
    ):
        await until(lambda: holds(relaying.store.anything_left(), answer=False))
        own_postgres.freeze()
        try:
            await until(lambda: holds_at_least(relaying.metrics.relay_errors["postgres"]._value.get, 1))
        finally:
            own_postgres.thaw()
        (event_id,) = await bench.commit()
        await until(lambda: holds(bench.waiting(), [event_id]))


async def test_a_connection_that_an_administrator_ends_is_replaced(bench: Bench) -> None:
    async with bench.relaying(), bench.connected() as database:
        await until(lambda: holds_at_least_now(backends(database), 1))
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'intelliflow' AND datname = current_database()"
        )
        (event_id,) = await bench.commit()
        await until(lambda: holds(bench.waiting(), [event_id]))


async def test_a_missing_table_is_a_bug_and_not_an_outage(bench: Bench) -> None:
    async with bench.instance() as instance, bench.connected() as database:
        await instance.partitions.balance()
        await database.execute("DROP TABLE domain_event_outbox")
        with pytest.raises(asyncpg.UndefinedTableError):
            await instance.relay.run(StopSignal())


async def published(*instances: Instance) -> float:
    return sum(float(instance.metrics.published._value.get()) for instance in instances)


async def waiting_count(bench: Bench) -> int:
    return len(await bench.waiting())


async def backends(database: Any) -> int:
    return int(
        await database.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'intelliflow' AND datname = current_database()"
        )
    )


async def holds(question: Awaitable[object], answer: object) -> bool:
    return await question == answer


async def holds_at_least(value: Callable[[], float], least: float) -> bool:
    return value() >= least


async def holds_at_least_now(question: Awaitable[int], least: int) -> bool:
    return await question >= least
