"""From a committed row to a job, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from engine_harness import until
from events_worker.event import EventJob
from events_worker.relay import Relay
from events_worker.store import DatabaseUnavailable, OutboxStore
from events_worker.upkeep import ARCHIVE_BATCH, Upkeep
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue
from worker_runtime.loops import StopSignal
from worker_runtime.metrics import OutboxMetrics
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from embedded_stack import PostgresServer, RedisServer
    from events_worker.outbox import Unpublishable
    from events_worker.store import Settled
    from worker_runtime.loops import Loop

EVENTS = QueueName("intelliflow", "events")
RETURN_SECONDS = 2.0
INSERT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
VALUES ($1, $2, 'lead', 'l-1', 't-1', $3, $4)
"""


@dataclass
class Bench:
    """A database, a queue, and relays between them."""

    database_url: str
    redis: RedisConnection
    queue: JobQueue
    metrics: OutboxMetrics = field(default_factory=lambda: OutboxMetrics(CollectorRegistry()))

    async def commit(self, count: int = 1, event_type: str = "lead.created", **columns: Any) -> list[str]:
        ids = [str(uuid4()) for _ in range(count)]
        payload = json.dumps(columns.get("payload", {"leadId": "l-1"}))
        metadata = json.dumps(columns.get("metadata", {}))
        async with self.database() as database:
            await database.executemany(INSERT, [(event_id, event_type, payload, metadata) for event_id in ids])
        return ids

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.database_url)
        try:
            yield connection
        finally:
            await connection.close()

    async def row(self, event_id: str) -> dict[str, Any]:
        async with self.database() as database:
            return dict(await database.fetchrow("SELECT * FROM domain_event_outbox WHERE id = $1", event_id))

    async def count(self, condition: str) -> int:
        async with self.database() as database:
            return int(await database.fetchval(f"SELECT count(*) FROM domain_event_outbox WHERE {condition}"))

    async def waiting(self) -> list[str]:
        """Return the ids of the jobs, in the order in which they will run."""
        ids = await self.redis.call("LRANGE", EVENTS.key("wait"), 0, -1)
        return [job_id.decode() for job_id in reversed(ids)]

    async def job(self, event_id: str) -> dict[str, str]:
        flat = await self.redis.call("HGETALL", EVENTS.key(event_id))
        texts = [part.decode() for part in flat]
        return dict(zip(texts[::2], texts[1::2], strict=True))

    def relay(self, store: OutboxStore, *, batch_size: int = 100, poll_seconds: float = 0.05) -> Relay:
        return Relay(
            store, self.queue, self.metrics, batch_size=batch_size, poll_seconds=poll_seconds, max_job_bytes=20_000
        )

    @asynccontextmanager
    async def relaying(self, relays: int = 1, **options: Any) -> AsyncIterator[list[Relay]]:
        stores = [OutboxStore(self.database_url) for _ in range(relays)]
        started = [self.relay(store, **options) for store in stores]
        async with running(started):
            yield started
        for store in stores:
            await store.close()

    def published(self) -> float:
        return float(self.metrics.published._value.get())


@asynccontextmanager
async def running(loops: Sequence[Loop]) -> AsyncIterator[None]:
    """Run loops and fail if one of them ends by itself."""
    stop = StopSignal()
    tasks = [asyncio.create_task(loop.run(stop)) for loop in loops]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        stop.request(5)
        await asyncio.wait_for(asyncio.gather(*tasks), 10)


@asynccontextmanager
async def opened(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    redis = RedisConnection(redis_url, client_name="test", timeout_seconds=1.0)
    await redis.open()
    try:
        yield Bench(database_url, redis, JobQueue(redis, EVENTS))
    finally:
        await redis.close()


@pytest.fixture
async def bench(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    async with opened(redis_url, database_url) as made:
        yield made


async def test_committed_events_become_jobs_in_order(bench: Bench) -> None:
    metadata = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "correlationId": "c-1"}
    ids = await bench.commit(20, payload={"leadId": "l-1", "amount": 1}, metadata=metadata)
    async with bench.relaying():
        await until(lambda: holds(bench.count("status = 'processed'"), 20))
    assert await bench.waiting() == ids
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
    assert bench.published() == 20


async def test_a_full_batch_is_followed_at_once(bench: Bench) -> None:
    ids = await bench.commit(250)
    async with bench.relaying(batch_size=50, poll_seconds=60):
        await until(lambda: holds(bench.count("processed_at IS NULL"), 0))
    assert await bench.waiting() == ids


async def test_a_transaction_that_commits_late_is_not_lost(bench: Bench) -> None:
    late = str(uuid4())
    async with bench.database() as database, bench.relaying():
        transaction = database.transaction()
        await transaction.start()
        await database.execute(INSERT, late, "lead.created", "{}", "{}")
        (early,) = await bench.commit()
        await until(lambda: holds(bench.waiting(), [early]))
        await transaction.commit()
        await until(lambda: holds(bench.waiting(), [early, late]))


async def test_what_is_rolled_back_is_not_published(bench: Bench) -> None:
    async with bench.database() as database, bench.relaying():
        transaction = database.transaction()
        await transaction.start()
        await database.execute(INSERT, str(uuid4()), "lead.created", "{}", "{}")
        await transaction.rollback()
        (kept,) = await bench.commit()
        await until(lambda: holds(bench.waiting(), [kept]))


async def test_two_relays_make_one_job_of_each_event(bench: Bench) -> None:
    ids = await bench.commit(1_000)
    async with bench.relaying(relays=2, batch_size=20, poll_seconds=0.001):
        await until(lambda: holds(bench.count("processed_at IS NULL"), 0))
    assert sorted(await bench.waiting()) == sorted(ids)
    assert bench.published() == 1_000
    assert await bench.count("status = 'processed' AND retry_count = 0") == 1_000


async def test_an_event_that_can_never_be_published_is_set_aside_and_counted(bench: Bench) -> None:
    (nameless,) = await bench.commit(event_type="")
    (huge,) = await bench.commit(payload={"text": "x" * 50_000})
    (odd,) = await bench.commit(metadata=[1])
    (good,) = await bench.commit()
    async with bench.relaying():
        await until(lambda: holds(bench.count("processed_at IS NULL"), 0))
    assert await bench.waiting() == [good]
    errors = [(await bench.row(event_id))["last_error"].split(":")[0] for event_id in (nameless, huge, odd)]
    assert errors == ["INVALID_EVENT", "PAYLOAD_TOO_LARGE", "INVALID_EVENT"]
    assert await bench.count("status = 'dead_letter' AND processed_at IS NOT NULL") == 3
    assert bench.metrics.failed._value.get() == 3


async def test_an_event_waits_for_its_next_retry(bench: Bench) -> None:
    waiting, due = await bench.commit(2)
    async with bench.database() as database:
        for event_id, offset in ((waiting, "1 hour"), (due, "-1 hour")):
            await database.execute(
                f"UPDATE domain_event_outbox SET next_retry_at = now() + interval '{offset}' WHERE id = $1", event_id
            )
    async with bench.relaying():
        await until(lambda: holds(bench.waiting(), [due]))
    assert await bench.count("processed_at IS NULL") == 1


async def test_times_that_python_does_not_know_do_not_stop_the_relay(bench: Bench) -> None:
    ids = await bench.commit(3)
    async with bench.database() as database:
        for event_id, moment in zip(ids, ("infinity", "-infinity", "0044-03-15 BC"), strict=True):
            await database.execute(f"UPDATE domain_event_outbox SET created_at = '{moment}' WHERE id = $1", event_id)
    async with bench.relaying():
        await until(lambda: holds(bench.waiting(), ids))


async def test_a_relay_that_dies_between_publishing_and_settling_makes_no_second_job(bench: Bench) -> None:
    ids = await bench.commit(10)

    class Dying(OutboxStore):
        async def settle(self, published: Sequence[str], unpublishable: Sequence[Unpublishable]) -> Settled:
            raise DatabaseUnavailable(f"gone with {len(published)} and {len(unpublishable)}")

    dying = Dying(bench.database_url)
    with pytest.raises(DatabaseUnavailable):
        await bench.relay(dying).relay_batch()
    await dying.close()
    assert await bench.count("processed_at IS NULL") == 10
    async with bench.relaying():
        await until(lambda: holds(bench.count("processed_at IS NULL"), 0))
    assert await bench.waiting() == ids


async def test_a_stop_is_heard_while_waiting(bench: Bench) -> None:
    async with bench.relaying(poll_seconds=60):
        await until(lambda: holds(bench.count("processed_at IS NULL"), 0))
        started = time.monotonic()
    assert time.monotonic() - started < 1


async def test_redis_may_go_and_come_back(own_redis: RedisServer, database_url: str) -> None:
    async with opened(own_redis.url, database_url) as bench, bench.relaying() as (relay,):
        own_redis.kill()
        ids = await bench.commit(5)
        await until(lambda: holds_at_least(bench.metrics.relay_errors["redis"]._value.get, 2))
        assert relay.heartbeat.age_seconds < 2
        assert await bench.count("status = 'pending' AND retry_count = 0 AND last_error IS NULL") == 5
        await asyncio.to_thread(own_redis.start)
        await until(lambda: holds(bench.waiting(), ids), within=RETURN_SECONDS)
        await until(lambda: holds(bench.count("status = 'processed'"), 5))
        assert bench.metrics.failed._value.get() == 0


async def test_postgres_may_go_and_come_back(own_postgres: PostgresServer, redis_url: str) -> None:
    async with opened(redis_url, own_postgres.url) as bench, bench.relaying() as (relay,):
        first = await bench.commit(5)
        await until(lambda: holds(bench.waiting(), first))
        await asyncio.to_thread(own_postgres.kill)
        await until(lambda: holds_at_least(bench.metrics.relay_errors["postgres"]._value.get, 2))
        assert relay.heartbeat.age_seconds < 2
        await asyncio.to_thread(own_postgres.start)
        second = await bench.commit(5)
        await until(lambda: holds(bench.waiting(), first + second), within=RETURN_SECONDS)
        await until(lambda: holds(bench.count("status = 'processed'"), 10))


async def test_a_postgres_that_falls_silent_is_noticed(own_postgres: PostgresServer, redis_url: str) -> None:
    async with opened(redis_url, own_postgres.url) as bench:
        (event_id,) = await bench.commit()
        store = OutboxStore(own_postgres.url, command_seconds=0.3)
        await store.ping()
        own_postgres.freeze()
        try:
            async with running([bench.relay(store)]):
                await until(lambda: holds_at_least(bench.metrics.relay_errors["postgres"]._value.get, 1))
                own_postgres.thaw()
                await until(lambda: holds(bench.waiting(), [event_id]))
        finally:
            own_postgres.thaw()
        await store.close()


async def test_a_connection_that_an_administrator_ends_is_replaced(bench: Bench) -> None:
    async with bench.relaying(), bench.database() as database:
        await until(lambda: holds_at_least_now(backends(database), 1))
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'events-worker' AND datname = current_database()"
        )
        (event_id,) = await bench.commit()
        await until(lambda: holds(bench.waiting(), [event_id]))


async def test_a_missing_table_is_a_bug_and_not_an_outage(bench: Bench) -> None:
    async with bench.database() as database:
        await database.execute("DROP TABLE domain_event_outbox")
    store = OutboxStore(bench.database_url)
    with pytest.raises(asyncpg.UndefinedTableError):
        await bench.relay(store).run(StopSignal())
    await store.close()


async def test_upkeep_archives_in_batches_and_measures_the_lag(bench: Bench) -> None:
    total = ARCHIVE_BATCH + 100
    await bench.commit(total)
    async with bench.database() as database:
        await database.execute(
            "UPDATE domain_event_outbox SET status = 'processed', processed_at = now() - interval '8 days'"
        )
        await bench.commit(3)
        await database.execute(
            "UPDATE domain_event_outbox SET created_at = now() - interval '1 minute' WHERE processed_at IS NULL"
        )
        store = OutboxStore(bench.database_url)
        async with running([Upkeep(store, bench.metrics, every_seconds=0.05)]):
            await until(lambda: holds(database.fetchval("SELECT count(*) FROM domain_event_outbox_archive"), total))
        await store.close()
        assert await bench.count("true") == 3
        assert await database.fetchval("SELECT count(DISTINCT id) FROM domain_event_outbox_archive") == total
    assert bench.metrics.pending._value.get() == 3
    assert 60 <= bench.metrics.oldest_age._value.get() < 120


async def backends(database: Any) -> int:
    return int(
        await database.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'events-worker' AND datname = current_database()"
        )
    )


async def holds(question: Awaitable[object], answer: object) -> bool:
    return await question == answer


async def holds_at_least(value: Callable[[], float], least: float) -> bool:
    return value() >= least


async def holds_at_least_now(question: Awaitable[int], least: int) -> bool:
    return await question >= least
