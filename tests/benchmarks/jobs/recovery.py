"""What becomes of the jobs a second when the database is restarted, and when all connections are ended."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks.jobs.contenders import SLOTS, ours, plain
from benchmarks.workflows.measurement import place, running_servers

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.workflows.contenders import AtWork, Contender
    from benchmarks.workflows.measurement import Place, Servers

LOOK_SECONDS = 0.25
END_CONNECTIONS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def measure_recovery(seconds: float, backlog: int) -> list[dict[str, Any]]:
    """Return a row for each contender and fault: the rate before, and after until a job is done again."""
    faults: dict[str, Callable[[Place], None]] = {
        "nothing": lambda _: None,
        "restart": _restart,
        "connections": _end_connections,
    }
    rows = []
    with running_servers() as servers:
        for contender in (plain(SLOTS[0]), ours(SLOTS[0])):
            for name, fault in faults.items():
                rows.append(_recovered(contender, servers, fault, seconds, backlog) | {"fault": name})
                rows[-1]["contender"] = f"{contender.name.partition(',')[0]}, {name}"
    return rows


def _recovered(
    contender: Contender, servers: Servers, fault: Callable[[Place], None], seconds: float, backlog: int
) -> dict[str, Any]:
    with place(contender, servers) as here:
        here.ask("backlog", 0, backlog)
        with here.at_work() as worker:
            worker.await_that(lambda: here.effects.count() > 0)
            before = _rate(here, worker, seconds)
            fault(here)
            came_back = _done_again(here, worker, seconds * 2)
            after = _rate(here, worker, seconds) if came_back is not None else 0.0
        return {
            "before": before,
            "after": after,
            "part": after / before,
            "again": came_back if came_back is not None else float("inf"),
        }


def _rate(here: Place, worker: AtWork, seconds: float) -> float:
    began, done = time.monotonic(), here.effects.count()
    while time.monotonic() - began < seconds and worker.process.poll() is None:
        time.sleep(LOOK_SECONDS)
    return (here.effects.count() - done) / (time.monotonic() - began)


def _done_again(here: Place, worker: AtWork, patience: float) -> float | None:
    """Return the seconds until two looks in a row each find more done; `None` for never."""
    began, counts = time.monotonic(), [here.effects.count()]
    while time.monotonic() - began < patience and worker.process.poll() is None:
        time.sleep(LOOK_SECONDS)
        counts.append(here.effects.count())
        if len(counts) > 2 and all(more > less for less, more in pairwise(counts[-3:])):
            return time.monotonic() - began
    return None


def _restart(here: Place) -> None:
    here.servers.postgres.stop()
    here.servers.postgres.start()


def _end_connections(here: Place) -> None:
    with psycopg.connect(here.url, autocommit=True) as connection:
        connection.execute(END_CONNECTIONS)
