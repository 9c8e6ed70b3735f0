"""Executions a second from a backlog, and how soon a single one begins; one server, a database for each turn."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg

from benchmarks.workflows.contenders import cpu_seconds
from benchmarks.workflows.effects import Effects
from benchmarks.workflows.task import Task
from embedded_stack import PostgresServer, redis_server
from embedded_stack.postgres import drop_database

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from benchmarks.workflows.contenders import AtWork, Contender
    from embedded_stack import RedisServer


@dataclass(frozen=True)
class Servers:
    """What all contenders have."""

    postgres: PostgresServer
    redis: RedisServer


@dataclass(frozen=True)
class Place:
    """Where one contender has its turn."""

    contender: Contender
    servers: Servers
    url: str
    effects: Effects

    def ask(self, role: str, first: int = 0, executions: int = 0, every_seconds: float = 0.0) -> list[Any]:
        task = Task(role, first, executions, every_seconds)
        return self.contender.ask(task, self.url, self.effects.path)

    def at_work(self) -> AbstractContextManager[AtWork]:
        return self.contender.at_work(self.url, self.servers.redis.url, self.effects.path)

    def tell(self, question: str) -> float:
        with psycopg.connect(self.url, autocommit=True) as connection:
            answer = connection.execute(question.encode()).fetchone()
        return float(answer[0] or 0) if answer else 0.0

    def await_finished(self, worker: AtWork, executions: int) -> None:
        """Wait for all effects first: counting rows is no small work for the server."""
        worker.await_that(lambda: self.effects.count() >= executions * len(self.contender.steps))
        worker.await_that(lambda: self.tell(self.contender.finished) >= executions, every=0.02)


def measure_throughput(everybody: Sequence[Contender], executions: int, repeats: int) -> list[dict[str, Any]]:
    """Return a row for each contender: medians over the repeats."""
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)
    with running_servers() as servers:
        for contender in in_turns(everybody, repeats):
            with place(contender, servers) as here:
                measured[contender.name].append(worked_off(here, executions))
    rows = [summary(contender.name, measured[contender.name]) for contender in everybody]
    ours = next((row["executionsPerSecond"] for row in rows if row["contender"] == "ours"), 0.0)
    return [row | {"ratio": ours / row["executionsPerSecond"]} for row in rows]


def measure_latency(everybody: Sequence[Contender], starts: int, every_seconds: float) -> list[dict[str, Any]]:
    """Return a row for each contender: milliseconds from asking for one execution until its first step."""
    with running_servers() as servers:
        rows = []
        for contender in everybody:
            with place(contender, servers) as here:
                rows.append({"contender": contender.name, **waits(here, starts, every_seconds)})
    return rows


def worked_off(here: Place, executions: int) -> dict[str, float]:
    """Start a backlog, let a worker have it, and see that each step of it was done once."""
    (enqueued,) = here.ask("backlog", 0, executions)
    with psycopg.connect(here.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    with here.at_work() as worker:
        worker.await_that(lambda: here.effects.count() > 0, every=0.002)
        before = worker.cpu_seconds(), cpu_seconds(here.servers.postgres.pid)
        here.await_finished(worker, executions)
        ended, after = time.time(), (worker.cpu_seconds(), cpu_seconds(here.servers.postgres.pid))
    here.effects.refuse_all_but(range(executions))
    seconds = ended - here.tell(here.contender.began)
    ours, theirs = (used - unused for used, unused in zip(after, before, strict=True))
    return {
        "executionsPerSecond": executions / seconds,
        "enqueuedPerSecond": executions / enqueued["seconds"],
        "workerCpuPer1k": ours / executions * 1000,
        "serverCpuPer1k": theirs / executions * 1000,
    }


def waits(here: Place, starts: int, every_seconds: float) -> dict[str, float]:
    """Start one after another while there is nothing else to do."""
    with here.at_work() as worker:
        here.ask("backlog", 0, 1)
        here.await_finished(worker, 1)  # It is up, and has done it once.
        before, since = worker.cpu_seconds() + cpu_seconds(here.servers.postgres.pid), time.monotonic()
        asked = {line["number"]: line["asked"] for line in here.ask("singles", 1, starts, every_seconds)}
        here.await_finished(worker, 1 + starts)
        used = (worker.cpu_seconds() + cpu_seconds(here.servers.postgres.pid) - before) / (time.monotonic() - since)
    here.effects.refuse_all_but(range(1 + starts))
    began = here.effects.first_steps()
    milliseconds = sorted((began[number] - moment) * 1000 for number, moment in asked.items())
    centiles = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return {"p50Ms": centiles[49], "p95Ms": centiles[94], "p99Ms": centiles[98], "cores": used}


@contextmanager
def running_servers() -> Iterator[Servers]:
    """Run a PostgreSQL that waits for its disk, and a Redis, for whoever wants one to be there."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        postgres = running.enter_context(PostgresServer(Path(folder) / "postgres"))
        yield Servers(postgres, running.enter_context(redis_server(Path(folder) / "redis", durable=False)))


@contextmanager
def place(contender: Contender, servers: Servers) -> Iterator[Place]:
    """Make a database and the contender's tables for the length of the block."""
    name = f"bench_{uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as folder:
        here = Place(
            contender,
            servers,
            servers.postgres.create_database(name),
            Effects(Path(folder) / "effects", contender.steps),
        )
        here.ask("prepare")
        try:
            yield here
        finally:
            drop_database(servers.postgres.url, name)


def in_turns(everybody: Sequence[Contender], turns: int) -> Iterator[Contender]:
    """Let a noisy machine hit all alike: A B C, B C A, C A B."""
    for turn in range(turns):
        shift = turn % len(everybody)
        yield from (*everybody[shift:], *everybody[:shift])


def summary(name: str, repeats: list[dict[str, float]]) -> dict[str, Any]:
    medians = {key: statistics.median(figures[key] for figures in repeats) for key in repeats[0]}
    rates = [figures["executionsPerSecond"] for figures in repeats]
    return {"contender": name, **medians, "slowest": min(rates), "fastest": max(rates)}
