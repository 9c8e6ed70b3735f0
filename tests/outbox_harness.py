"""The relay's side of an events-worker without the process, between a real PostgreSQL and a real Redis."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
from prometheus_client import CollectorRegistry

from events_worker.headroom import Headroom
from events_worker.partitions import Partitions
from events_worker.publisher import Publisher
from events_worker.reconciler import Reconciler
from events_worker.relay import Relay
from events_worker.store import OutboxStore, PartitionStore, TurnStore
from events_worker.turns import Turns
from events_worker.worker import CLAIMS, HINTS
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue
from worker_runtime.loops import StopSignal
from worker_runtime.metrics import OutboxMetrics
from worker_runtime.postgres import BY_INDEX, Database, Listener
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker_runtime.loops import Loop

EVENTS = QueueName("intelliflow", "events")
MAX_JOB_BYTES = 20_000
INSERT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
VALUES ($1, $2, 'lead', $3, 't-1', $4, $5)
"""


@dataclass(frozen=True)
class Instance:
    """What one events-worker has of the relay."""

    database: Database
    store: OutboxStore
    turn_store: TurnStore
    publisher: Publisher
    partitions: Partitions
    relay: Relay
    reconciler: Reconciler
    turns: Turns
    metrics: OutboxMetrics

    @property
    def loops(self) -> Sequence[Loop]:
        return (self.partitions, self.relay, self.reconciler)


@dataclass(frozen=True)
class Bench:
    """A database, a queue, and relays between them."""

    database_url: str
    redis: RedisConnection
    queue: JobQueue

    async def commit(
        self, count: int = 1, event_type: str = "lead.created", *, aggregate: str = "", **columns: Any
    ) -> list[str]:
        """Insert events one by one, each of an aggregate of its own unless one is named."""
        ids = [str(uuid4()) for _ in range(count)]
        payload = json.dumps(columns.get("payload", {"leadId": "l-1"}))
        metadata = json.dumps(columns.get("metadata", {}))
        rows = [(event_id, event_type, aggregate or event_id, payload, metadata) for event_id in ids]
        async with self.connected() as connection:
            await connection.executemany(INSERT, rows)
        return ids

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.database_url)
        try:
            yield connection
        finally:
            await connection.close()

    async def row(self, event_id: str) -> dict[str, Any]:
        async with self.connected() as connection:
            return dict(await connection.fetchrow("SELECT * FROM domain_event_outbox WHERE id = $1", event_id))

    async def count(self, condition: str, table: str = "domain_event_outbox") -> int:
        async with self.connected() as connection:
            return int(await connection.fetchval(f"SELECT count(*) FROM {table} WHERE {condition}"))

    async def under_way(self, condition: str = "true") -> int:
        return await self.count(condition, "domain_event_under_way")

    async def waiting(self) -> list[str]:
        """Return the ids of the jobs, in the order in which they will run."""
        ids = await self.redis.call("LRANGE", EVENTS.key("wait"), 0, -1)
        return [job_id.decode() for job_id in reversed(ids)]

    async def job(self, event_id: str) -> dict[str, str]:
        flat = await self.redis.call("HGETALL", EVENTS.key(event_id))
        texts = [part.decode() for part in flat]
        return dict(zip(texts[::2], texts[1::2], strict=True))

    @asynccontextmanager
    async def instance(self, **options: Any) -> AsyncIterator[Instance]:
        """Build an instance that does nothing by itself."""
        async with AsyncExitStack() as opened:
            yield await build(opened, self.database_url, self.queue, **options)

    @asynccontextmanager
    async def relaying(self, **options: Any) -> AsyncIterator[Instance]:
        """Build an instance and let it work."""
        async with self.instance(**options) as made, running(made.loops):
            yield made


async def build(
    opened: AsyncExitStack,
    database_url: str,
    queue: JobQueue,
    *,
    batch_size: int = 100,
    poll_seconds: float = 0.05,
    partitions: int = 16,
    lease_seconds: float = 15.0,
    balance_seconds: float = 0.1,
    settled_seconds: float = 10.0,
    reconcile_seconds: float = 0.1,
    blocks: bool = False,
    command_seconds: float = 5.0,
    most_waiting: int = 0,
) -> Instance:
    hinted = asyncio.Event()

    async def database(**settings: Any) -> Database:
        made = Database(database_url, command_seconds=command_seconds, **settings)
        return await opened.enter_async_context(made)

    metrics = OutboxMetrics(CollectorRegistry())
    background = await database(settings=BY_INDEX)
    claims = await database(settings=CLAIMS, listener=Listener(HINTS, hinted.set))
    turn_store = TurnStore(await database(settings=BY_INDEX), await database(settings=BY_INDEX), MAX_JOB_BYTES)
    publisher = Publisher(queue, turn_store, metrics, max_job_bytes=MAX_JOB_BYTES, blocks=lambda _: blocks)
    leases = PartitionStore(background, f"instance {uuid4()}", lease_seconds)
    await leases.record(partitions)
    owned = Partitions(leases, metrics, hinted=hinted, every_seconds=balance_seconds)
    store = OutboxStore(claims, partitions, MAX_JOB_BYTES)
    relay = Relay(
        store,
        publisher,
        owned,
        Headroom(queue, most_waiting, metrics),
        metrics,
        batch_size=batch_size,
        poll_seconds=poll_seconds,
        hinted=hinted,
    )
    reconciler = Reconciler(
        OutboxStore(background, partitions, MAX_JOB_BYTES),
        queue,
        publisher,
        owned,
        metrics,
        settled_seconds=settled_seconds,
        every_seconds=reconcile_seconds,
    )
    turns = Turns(turn_store, publisher)
    return Instance(background, store, turn_store, publisher, owned, relay, reconciler, turns, metrics)


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
async def opened_bench(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    redis = RedisConnection(redis_url, client_name="test", timeout_seconds=1.0)
    await redis.open()
    try:
        yield Bench(database_url, redis, JobQueue(redis, EVENTS))
    finally:
        await redis.close()
