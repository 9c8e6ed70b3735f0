"""Events a second from a backlog in PostgreSQL to the queue, for one relay and for two."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import redis

from benchmarks.contenders import HERE
from embedded_stack import PostgresServer, RedisServer
from interop.node_packages import node_packages
from worker_ops.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH = 100
# About 300 bytes of payload; each event is of an aggregate of its own, so that nothing waits for its turn.
FILL = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
SELECT gen_random_uuid(), 'lead.created', 'lead', 'lead-' || number, 'tenant_0042',
       jsonb_build_object('leadId', 'lead-' || number, 'email', 'ada@example.com', 'source', 'web', 'score', number,
                          'notes', repeat('note ', 40)),
       jsonb_build_object('correlationId', gen_random_uuid())
  FROM generate_series(1, %s::int) AS number
"""
PATIENCE_SECONDS = 300
SETTLING_SECONDS = 2.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Relayer:
    """Somebody with a relay, in so many processes."""

    name: str
    command: tuple[str, ...]
    processes: int = 1


OURS = Relayer("ours", (sys.executable, str(HERE / "relay_ours.py")))


def relayers() -> list[Relayer]:
    """Return all that can run here."""
    ours = [OURS, Relayer("ours, 2 processes", OURS.command, 2)]
    stock = Relayer("asyncpg + bullmq", (sys.executable, str(HERE / "relay_stock.py")))
    if not (shutil.which("node") and shutil.which("npm")):
        sys.stderr.write("left out: Node (node and npm not found)\n")
        return [stock, *ours]
    return [Relayer("Node pg + addBulk", ("node", str(HERE / "relay_node.mjs"), str(node_packages()))), stock, *ours]


def measure_throughput(everybody: list[Relayer], events: int, repeats: int) -> list[dict[str, Any]]:
    """Return a row for each relayer: medians over the repeats."""
    measured = defaultdict(list)
    for turn in range(repeats):
        for relayer in everybody if turn % 2 == 0 else reversed(everybody):
            with servers() as (postgres, queue):
                measured[relayer.name].append(relay(relayer, postgres.url, queue, events))
    rows = [summary(relayer.name, measured[relayer.name]) for relayer in everybody]
    ours = next((row["eventsPerSecond"] for row in rows if row["contender"] == OURS.name), 0.0)
    return [row | {"ratio": ours / row["eventsPerSecond"]} for row in rows]


def summary(name: str, repeats: list[dict[str, float]]) -> dict[str, Any]:
    medians = {key: statistics.median(figures[key] for figures in repeats) for key in repeats[0]}
    rates = [figures["eventsPerSecond"] for figures in repeats]
    return {"contender": name, **medians, "slowest": min(rates), "fastest": max(rates)}


def relay(relayer: Relayer, database_url: str, queue: RedisServer, events: int) -> dict[str, float]:
    """Let a relayer work off a backlog."""
    fill(database_url, events)
    with redis.Redis.from_url(queue.url) as client, ExitStack() as running:
        started = [running.enter_context(process(relayer, database_url, queue.url)) for _ in range(relayer.processes)]
        time.sleep(SETTLING_SECONDS)  # Relays that share their work agree on it first.
        before, began = sum(map(cpu_seconds, started)), time.monotonic()
        for one in started:
            one.stdin.write("go\n")
            one.stdin.flush()
        await_length(client, events, began + PATIENCE_SECONDS)
        seconds = time.monotonic() - began
        used = sum(map(cpu_seconds, started)) - before
    return {"eventsPerSecond": events / seconds, "cpuSecondsPer10k": used / events * 10_000}


def await_length(client: redis.Redis, events: int, deadline: float) -> None:
    while client.llen("intelliflow:events:wait") < events:
        if time.monotonic() > deadline:
            raise SystemExit(f"{client.llen('intelliflow:events:wait')} of {events} events arrived")
        time.sleep(0.005)


def fill(database_url: str, events: int) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(FILL, [events])
        connection.execute("VACUUM ANALYZE domain_event_outbox")
        connection.execute("CHECKPOINT")


@contextmanager
def process(relayer: Relayer, database_url: str, redis_url: str) -> Iterator[Any]:
    """Start a relay that waits for a line, and end it after the block."""
    environment = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "BATCH": str(BATCH)}
    paths = {"PYTHONPATH": str(HERE.parent)}
    started = subprocess.Popen(
        relayer.command,
        env=os.environ | environment | paths,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if started.stdout is None or started.stdout.readline() != "ready\n":
            raise SystemExit(f"{relayer.name} did not start")
        yield started
    finally:
        started.kill()
        started.communicate()


def cpu_seconds(started: Any) -> float:
    """How long a process has computed."""
    fields = Path(f"/proc/{started.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def servers(*, durable_redis: bool = False) -> Iterator[tuple[PostgresServer, RedisServer]]:
    """Start a PostgreSQL that waits for its disk, with the current schema, and a Redis."""
    with (
        tempfile.TemporaryDirectory() as here,
        tempfile.TemporaryDirectory() as there,
        PostgresServer(Path(here)) as postgres,
        RedisServer(Path(there), durable=durable_redis) as queue,
    ):
        migrate(postgres.url, lambda _: None)
        yield postgres, queue
