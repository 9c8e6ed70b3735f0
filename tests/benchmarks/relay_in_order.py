"""What order and failure cost: a busy aggregate, a relay that is killed, a look into a table of finished rows."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import psycopg
import redis

from benchmarks.relay_throughput import PATIENCE_SECONDS, servers
from embedded_stack.ports import free_port
from events_worker.store import OutboxStore, PartitionStore
from worker_runtime.postgres import BY_INDEX, Database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedded_stack import PostgresServer, RedisServer

COMMIT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload)
SELECT gen_random_uuid(), 'task.counted', 'task', 'task-' || (number %% %s), 'tenant_0042',
       jsonb_build_object('taskId', 'task', 'number', number)
  FROM generate_series(1, %s) AS number
"""
FINISHED = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, status, processed_at)
SELECT gen_random_uuid(), 'task.counted', 'task', 'task-' || number, 'tenant_0042', 'processed', now()
  FROM generate_series(1, %s) AS number
"""
LOOKS = 200


def measure_order(events: int) -> list[dict[str, Any]]:
    """Return a row for the busy aggregate and one for many, through the process that a team runs."""
    rows = []
    for contender, aggregates in (("one aggregate", 1), ("100 aggregates", 100)):
        with servers() as (postgres, queue), events_worker(postgres, queue):
            seconds = handle(postgres, queue, aggregates, events)
            rows.append({"contender": contender, "eventsPerSecond": events / seconds})
    return rows


def measure_takeover(events: int) -> list[dict[str, Any]]:
    """Return how long events wait for the partitions of a worker that was killed."""
    with servers() as (postgres, queue), events_worker(postgres, queue) as killed, events_worker(postgres, queue):
        wait_until_shared(postgres)
        killed.kill()
        return [{"contender": "ours", "takeoverSeconds": handle(postgres, queue, events, events)}]


def measure_look(finished: int) -> list[dict[str, Any]]:
    """Return how long it takes to find nothing, and one event, beside finished rows."""
    with servers() as (postgres, _):
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(FINISHED, [finished])
            connection.execute("VACUUM ANALYZE domain_event_outbox")
        nothing, something = asyncio.run(looks(postgres.url))
    return [{"contender": "ours", "finished": finished, "nothingMs": nothing, "oneMs": something}]


async def looks(database_url: str) -> tuple[float, float]:
    async with Database(database_url, settings=BY_INDEX) as database:
        leases, store = PartitionStore(database, "here", 60.0), OutboxStore(database, 16, 20_000)
        await leases.record(16)
        tokens = (await leases.balance(())).tokens
        nothing = [await seconds_of(store, tokens) for _ in range(LOOKS)]
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(COMMIT, [LOOKS, LOOKS])
        something = [await seconds_of(store, tokens, limit=1) for _ in range(LOOKS)]
    return statistics.median(nothing) * 1000, statistics.median(something) * 1000


async def seconds_of(store: OutboxStore, tokens: Any, limit: int = 100) -> float:
    began = time.perf_counter()
    await store.claim(limit, tokens)
    return time.perf_counter() - began


def handle(postgres: PostgresServer, queue: RedisServer, aggregates: int, events: int) -> float:
    """Commit events in one transaction and return how long it takes until all are handled."""
    with psycopg.connect(postgres.url, autocommit=True) as connection, redis.Redis.from_url(queue.url) as client:
        connection.execute(COMMIT, [aggregates, events])
        began = time.monotonic()
        while client.zcard("intelliflow:events:completed") < events:
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise SystemExit(f"{client.zcard('intelliflow:events:completed')} of {events} events were handled")
            time.sleep(0.005)
        return time.monotonic() - began


def wait_until_shared(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        owners = "SELECT count(DISTINCT owner) FROM domain_event_partition"
        began = time.monotonic()
        while (connection.execute(owners).fetchone() or (0,))[0] < 2:
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise SystemExit("the two workers did not share the partitions")
            time.sleep(0.05)


@contextmanager
def events_worker(postgres: PostgresServer, queue: RedisServer) -> Iterator[subprocess.Popen[bytes]]:
    """Run the process a team runs, ready, in the block."""
    port = free_port()
    environment = {"DATABASE_URL": postgres.url, "REDIS_URL": queue.url, "HEALTH_PORT": str(port)}
    started = subprocess.Popen(
        [sys.executable, "-m", "events_worker"],
        env={"PATH": os.defpath, "LOG_LEVEL": "error", **environment},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(port)
        yield started
    finally:
        started.kill()
        started.wait()


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
