"""How soon a committed event is a job, by polling alone and with the hint of the documents; what hints cost writers.

The database waits for its disk, the relay is an events-worker as it is shipped, the hint is the documents' example.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

# Run as a file, its own folder is what Python searches.
sys.path.insert(0, str(Path(__file__).parents[1]))

import asyncpg
import psycopg
import redis

from embedded_stack import postgres_server, redis_server
from producers.producer import example
from worker_ops.migrations import migrate
from worker_suite import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from embedded_stack import PostgresServer, RedisServer

COMMITS_A_SECOND = 100
WRITERS = 16
PATIENCE_SECONDS = 30.0
CHANNEL = "domain_event_outbox"
# No rule speaks of it, so that handling it costs next to nothing.
INSERT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload)
VALUES ({0}, 'lead.deleted', 'Lead', ({0})::text, 't-1', '{{"leadId": "l-1", "tenantId": "t-1"}}')
"""


def measure_latency(seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Return a row by polling alone and one with hints, medians of the repeats: milliseconds from commit to job."""
    measured: dict[str, list[Sequence[float]]] = defaultdict(list)
    for turn in range(repeats):
        for name in in_turn(["polled", "hinted"], turn):
            with servers() as (postgres, queue), relay(postgres, queue):
                measured[name].append(
                    latencies(postgres, queue, round(seconds * COMMITS_A_SECOND), hinted=name == "hinted")
                )
    return [
        {
            "contender": name,
            "events": sum(map(len, runs)),
            "p50Ms": statistics.median(centile(run, 50) for run in runs),
            "p99Ms": statistics.median(centile(run, 99) for run in runs),
        }
        for name, runs in measured.items()
    ]


def measure_writers(seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Return commits a second of 16 writers: without hints, with them beside, and with a NOTIFY within each commit."""
    measured: dict[str, list[float]] = defaultdict(list)
    with servers() as (postgres, _), listening(postgres):
        for turn in range(repeats):
            for name in in_turn(["no hint", "hint", "NOTIFY within"], turn):
                measured[name].append(commits_a_second(postgres, seconds, name))
    without = statistics.median(measured["no hint"])
    return [
        {
            "contender": name,
            "commitsPerSecond": statistics.median(runs),
            "slowedBy": 1 - statistics.median(runs) / without,
        }
        for name, runs in measured.items()
    ]


def latencies(postgres: PostgresServer, queue: RedisServer, commits: int, *, hinted: bool) -> list[float]:
    """Commit events one by one, a hundred a second, and return how many milliseconds later each was a job."""
    with Arrivals(queue.url, commits) as arrivals, psycopg.connect(postgres.url, autocommit=True) as connection:
        tell, committed = hint(postgres) if hinted else no_hint, {}
        started = time.monotonic()
        for number in range(commits):
            time.sleep(max(0.0, started + number / COMMITS_A_SECOND - time.monotonic()))
            event_id = str(uuid4())
            connection.execute(INSERT.format("%(id)s::uuid").encode(), {"id": event_id})
            committed[event_id] = time.monotonic()
            tell()
        seen = arrivals.wait()
    return [(seen[event_id] - moment) * 1000 for event_id, moment in committed.items()]


class Arrivals:
    """When each job was there, as the queue's own stream tells."""

    def __init__(self, redis_url: str, jobs: int) -> None:
        self._client = redis.Redis.from_url(redis_url, decode_responses=True)
        self._jobs = jobs
        self._seen: dict[str, float] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def wait(self) -> dict[str, float]:
        """Return them all; raises `TimeoutError` when some do not come."""
        self._thread.join(PATIENCE_SECONDS)
        if self._thread.is_alive():
            raise TimeoutError(f"{len(self._seen)} of {self._jobs} events became jobs")
        return self._seen

    def _watch(self) -> None:
        key, after = "intelliflow:events:events", "0"
        while len(self._seen) < self._jobs:
            streams: Any = self._client.xread({key: after}, block=1_000, count=100)
            for _, entries in streams or ():
                now, after = time.monotonic(), entries[-1][0]
                self._seen |= {said["jobId"]: now for _, said in entries if said["event"] == "added"}


def commits_a_second(postgres: PostgresServer, seconds: float, how: str) -> float:
    """Let writers commit as fast as they can."""
    tell = hint(postgres) if how == "hint" else no_hint
    return asyncio.run(write(postgres.url, seconds, tell, notify=how == "NOTIFY within"))


async def write(url: str, seconds: float, tell: Callable[[], None], *, notify: bool) -> float:
    connections = [await asyncpg.connect(url) for _ in range(WRITERS)]
    deadline, started = time.monotonic() + seconds, time.monotonic()
    counts = await asyncio.gather(*(commit_until(one, deadline, tell, notify=notify) for one in connections))
    elapsed = time.monotonic() - started
    await connections[0].execute("TRUNCATE domain_event_outbox")
    for connection in connections:
        await connection.close()
    return sum(counts) / elapsed


async def commit_until(connection: Any, deadline: float, tell: Callable[[], None], *, notify: bool) -> int:
    insert, count = INSERT.format("$1::uuid"), 0
    while time.monotonic() < deadline:
        async with connection.transaction():
            await connection.execute(insert, uuid4())
            if notify:
                await connection.execute(f"NOTIFY {CHANNEL}")
        tell()
        count += 1
    return count


def hint(postgres: PostgresServer) -> Callable[[], None]:
    """Start the documents' helper."""
    made = example("outbox_hint").OutboxHint(postgres.url)
    made.start()
    tell: Callable[[], None] = made.committed.set
    return tell


def no_hint() -> None:
    """Leave it to the poll."""


def in_turn(names: list[str], turn: int) -> list[str]:
    """Let a noisy machine hit all alike: A B C, B C A, C A B."""
    return names[turn % len(names) :] + names[: turn % len(names)]


def centile(milliseconds: Sequence[float], percent: int) -> float:
    return statistics.quantiles(milliseconds, n=100)[percent - 1]


@contextmanager
def servers() -> Iterator[tuple[PostgresServer, RedisServer]]:
    """Run new servers in the block; the database waits for its disk."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        postgres = opened.enter_context(postgres_server(folder / "postgres"))
        migrate(postgres.url, lambda _: None)
        yield postgres, opened.enter_context(redis_server(folder / "redis", durable=False))


@contextmanager
def relay(postgres: PostgresServer, queue: RedisServer) -> Iterator[None]:
    """Run an events-worker in the block."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"DATABASE_URL": postgres.url, "REDIS_URL": queue.url, "LOG_LEVEL": "warn"}
        process = Process("events_worker", environment, Path(folder) / "log")
        try:
            process.ready(PATIENCE_SECONDS)
            yield
        finally:
            process.end()


@contextmanager
def listening(postgres: PostgresServer) -> Iterator[None]:
    """Have somebody listen, as a relay does: without a listener a NOTIFY costs nothing."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"LISTEN {CHANNEL}".encode())
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--parts", nargs="+", choices=("latency", "writers"), default=("latency", "writers"))
    parser.add_argument("--seconds", type=float, default=10, help="length of each measurement (default 10)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each way (default 3)")
    arguments = parser.parse_args()
    measure = {"latency": measure_latency, "writers": measure_writers}
    for part in arguments.parts:
        for row in measure[part](arguments.seconds, arguments.repeats):
            sys.stdout.write(json.dumps({"part": part, **row}) + "\n")


if __name__ == "__main__":
    main()
