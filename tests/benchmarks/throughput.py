"""Jobs a second, CPU and memory over a backlog of no-ops, and how fast a producer fills it."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import BODY, OURS, Contender, fresh_redis, taking_turns
from benchmarks.stopwatch import Task

if TYPE_CHECKING:
    from embedded_stack import RedisServer

REFERENCE = 50


def measure_throughput(everybody: list[Contender], jobs: int, repeats: int) -> list[dict[str, Any]]:
    """Return a row for each contender and concurrency: medians over the repeats."""
    measured = defaultdict(list)
    for contender in taking_turns(everybody, repeats):
        enqueue_seconds = enqueue(contender, jobs)
        for concurrency in (REFERENCE, 10, 200) if contender is OURS else (REFERENCE,):
            figures = {**drain(contender, jobs, concurrency), "enqueuedPerSecond": jobs / enqueue_seconds}
            measured[contender.name, concurrency].append(figures)
    rows = [summary(*of_whom, repeats) for of_whom, repeats in sorted(measured.items())]
    ours = next(row for row in rows if (row["contender"], row["concurrency"]) == (OURS.name, REFERENCE))
    for row in rows:
        row["ratio"] = ours["jobsPerSecond"] / row["jobsPerSecond"]
        row["enqueueRatio"] = ours["enqueuedPerSecond"] / row["enqueuedPerSecond"]
    return rows


def enqueue(contender: Contender, jobs: int) -> float:
    """Return how many seconds a contender's producer takes, in calls of a hundred."""
    with fresh_redis() as server:
        figures = contender.ask(Task("enqueue", server.url, jobs, REFERENCE, json.dumps(BODY)))
        expect(server, contender, f":{jobs}", "LLEN", "intelliflow:events:wait")
    seconds: float = figures["seconds"]
    return seconds


def drain(contender: Contender, jobs: int, concurrency: int) -> dict[str, float]:
    """Measure a contender's worker on a backlog that is the same for all."""
    with fresh_redis() as server:
        OURS.ask(Task("enqueue", server.url, jobs, REFERENCE, json.dumps(BODY)))
        before = reads(server)
        figures = contender.ask(Task("work", server.url, jobs, concurrency, ""))
        read = reads(server) - before
        expect(server, contender, f":{jobs}", "ZCARD", "intelliflow:events:completed")
    return {
        "jobsPerSecond": jobs / figures["seconds"],
        "cpuSecondsPer10k": figures["cpu"] / jobs * 10_000,
        "readsPerJob": read / jobs,
        "peakMb": figures["peakMb"],
    }


def reads(server: RedisServer) -> int:
    """How often the server has read from a socket so far: about the round trips."""
    lines = server.ask("INFO", "stats").splitlines()
    return next(int(line.partition(":")[2]) for line in lines if line.startswith("total_reads_processed:"))


def expect(server: RedisServer, contender: Contender, answer: str, *command: str) -> None:
    if (said := server.ask(*command)) != answer:
        raise SystemExit(f"{contender.name}: {' '.join(command)} is {said}, expected {answer}")


def summary(name: str, concurrency: int, repeats: list[dict[str, float]]) -> dict[str, Any]:
    medians = {key: statistics.median(figures[key] for figures in repeats) for key in repeats[0]}
    rates = [figures["jobsPerSecond"] for figures in repeats]
    return {"contender": name, "concurrency": concurrency, **medians, "slowest": min(rates), "fastest": max(rates)}
