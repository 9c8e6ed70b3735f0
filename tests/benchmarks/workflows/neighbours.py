"""How soon a small organisation's execution begins behind the backlogs of others; ours alone."""

from __future__ import annotations

import json
import random
import statistics
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks.workflows.contenders import cpu_seconds, ours
from benchmarks.workflows.effects import given
from benchmarks.workflows.measurement import place, running_servers
from benchmarks.workflows.task import SEED

if TYPE_CHECKING:
    from benchmarks.workflows.contenders import AtWork
    from benchmarks.workflows.measurement import Place, Servers

# Theirs are numbered from here on, so that each trace tells whose it is.
SMALL = 1_000_000_000
ENABLE = """
INSERT INTO fw_module_settings (organization_id, fw_execution_worker_enabled)
SELECT name, true FROM unnest(%s::text[]) AS name
"""
BACKLOG = """
INSERT INTO fw_workflow_executions (organization_id, workflow, workflow_version, input)
SELECT %s, 'bench.three', 1, %s::jsonb || jsonb_build_object('number', %s + number)
  FROM generate_series(1, %s) AS number
"""
START = "SELECT fw_workflow_start('small', 'bench.three', %s::jsonb)"


@dataclass(frozen=True)
class Crowd:
    """So many organisations, each with so many executions before us."""

    organisations: int
    each: int

    @property
    def name(self) -> str:
        """What the table says of it."""
        return f"{self.organisations:,} x {self.each:,}"


def crowds(backlog: int) -> list[Crowd]:
    """Return one that has everything, ten that share it, and a thousand."""
    return [Crowd(1, backlog), Crowd(10, backlog // 10), Crowd(1_000, max(1, backlog // 1_000))]


def measure_neighbours(backlog: int, starts: int, every_seconds: float) -> list[dict[str, Any]]:
    """Return a row for each crowd: milliseconds from asking for one execution until its first step."""
    with running_servers() as servers:
        return [{"contender": crowd.name, **_waits(servers, crowd, starts, every_seconds)} for crowd in crowds(backlog)]


def _waits(servers: Servers, crowd: Crowd, starts: int, every_seconds: float) -> dict[str, float]:
    shipped = replace(ours(), variables={**ours().variables, "QUEUE_CONCURRENCY": "50"})
    with place(shipped, servers) as here:
        _queue(here, crowd)
        with here.at_work() as worker:
            worker.await_that(lambda: here.effects.count() > 0)
            before, since = worker.cpu_seconds() + cpu_seconds(servers.postgres.pid), time.monotonic()
            asked = _start(here, worker, starts, every_seconds)
            used = (worker.cpu_seconds() + cpu_seconds(servers.postgres.pid) - before) / (time.monotonic() - since)
            begun = _begun(here)
            left = here.tell("SELECT count(*) FROM fw_workflow_executions WHERE status = 'queued'")
    milliseconds = sorted((begun[number] - moment) * 1000 for number, moment in asked.items())
    centiles = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return {
        "p50Ms": centiles[49],
        "p95Ms": centiles[94],
        "slowestMs": milliseconds[-1],
        "left": left,
        "cores": used,
    }


def _queue(here: Place, crowd: Crowd) -> None:
    names = [f"org-{number:05d}" for number in range(crowd.organisations)]
    with psycopg.connect(here.url, autocommit=True) as connection:
        connection.execute(ENABLE, [[*names, "small"]])
        for place_, name in enumerate(names):
            connection.execute(BACKLOG, [name, json.dumps(given(0)), place_ * crowd.each, crowd.each])
        connection.execute("VACUUM ANALYZE")


def _start(here: Place, worker: AtWork, starts: int, every_seconds: float) -> dict[int, float]:
    """Start one after another, each when the one before has begun: a small organisation keeps within its share."""
    chance, asked = random.Random(SEED), {}
    with psycopg.connect(here.url, autocommit=True) as connection:
        for number in range(SMALL, SMALL + starts):
            time.sleep(every_seconds * (0.5 + chance.random()))
            asked[number] = time.monotonic()
            connection.execute(START, [json.dumps(given(number))])
            worker.await_that(lambda number=number: number in _begun(here), every=0.05)  # type: ignore[misc]
    return asked


def _begun(here: Place) -> dict[int, float]:
    return {number: at for number, at in here.effects.first_steps().items() if number >= SMALL}
