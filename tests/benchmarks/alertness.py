"""How soon an idle worker begins: a job that has just been added, one that falls due, one that the limiter lets go."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import BODY, Contender, fresh_redis, taking_turns
from engine_harness import counts_by_window
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from embedded_stack import RedisServer

JOBS_A_SECOND = 100
LIMIT_MAX, LIMIT_MS = 100, 1_000
# Two clocks: those of the worker and of Redis, in seconds.
TWO_CLOCKS = 0.002


def measure_alertness(everybody: list[Contender], seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Return a row for each contender: medians over the repeats."""
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)
    for contender in taking_turns(everybody, repeats):
        woken, late = asyncio.run(wake(contender, seconds)), asyncio.run(delayed(contender, seconds))
        measured[contender.name].append(woken | late | asyncio.run(limited(contender, round(seconds))))
    return [
        {"contender": name, **{key: statistics.median(one[key] for one in runs) for key in runs[0]}}
        for name, runs in sorted(measured.items())
    ]


async def wake(contender: Contender, seconds: float) -> dict[str, float]:
    """Add jobs one by one to an idle worker; the producer's round trip is part of the time."""
    jobs = round(seconds * JOBS_A_SECOND)
    with fresh_redis() as server, contender.watching(server.url, jobs) as watched:
        began = asyncio.create_task(asyncio.to_thread(watched.arrivals, jobs))
        before = scripts_run(server)
        async with producer(server) as queue:
            added = await add_paced(queue, jobs)
        times = spread(added, await began)
        # One script call each was the producer's.
        calls = (scripts_run(server) - before) / jobs - 1
    return {"readySeconds": watched.ready_seconds, "scriptsPerJob": calls, **named("wake", times)}


async def add_paced(queue: JobQueue, jobs: int) -> dict[str, float]:
    started, added = time.monotonic(), {}
    for number in range(jobs):
        await asyncio.sleep(started + number / JOBS_A_SECOND - time.monotonic())
        added[str(number)] = time.monotonic()
        await queue.add(NewJob("event", {**BODY, "eventId": str(number)}))
    return added


async def delayed(contender: Contender, seconds: float) -> dict[str, float]:
    """Add jobs that fall due over some seconds and see how late they begin."""
    chance, jobs = random.Random(1), round(seconds * JOBS_A_SECOND / 5)
    with fresh_redis() as server, contender.watching(server.url, jobs) as watched:
        began, due = asyncio.create_task(asyncio.to_thread(watched.arrivals, jobs)), {}
        async with producer(server) as queue:
            for number in range(jobs):
                delay_ms = round(chance.uniform(300, 300 + seconds * 500))
                due[str(number)] = time.monotonic() + delay_ms / 1000
                await queue.add(NewJob("event", {**BODY, "eventId": str(number)}, delay_ms=delay_ms))
        return named("late", spread(due, await began))


async def limited(contender: Contender, windows: int) -> dict[str, float]:
    """Let the limiter meter a backlog out, and see how much of what it allows is used."""
    windows = max(2, windows // 2)
    jobs = LIMIT_MAX * (windows + 1)
    with fresh_redis() as server:
        async with producer(server) as queue:
            await queue.add_bulk([NewJob("event", {**BODY, "eventId": str(number)}) for number in range(jobs)])
        with contender.watching(server.url, jobs, limit_max=LIMIT_MAX, limit_ms=LIMIT_MS) as watched:
            patience = (windows + 1) * LIMIT_MS / 1000
            moments = sorted((await asyncio.to_thread(watched.arrivals, jobs, patience)).values())
    counted = sum(moment < moments[0] + windows * LIMIT_MS / 1000 for moment in moments)
    most = max(counts_by_window(moments, LIMIT_MS / 1000 - TWO_CLOCKS))
    return {"limitUsed": counted / (LIMIT_MAX * windows), "mostInWindow": most}


@asynccontextmanager
async def producer(server: RedisServer) -> AsyncIterator[JobQueue]:
    redis = RedisConnection(server.url, client_name="producer")
    await redis.open()
    yield JobQueue(redis, QueueName("intelliflow", "events"))
    await redis.close()


def scripts_run(server: RedisServer) -> int:
    """How many scripts the server has run so far."""
    lines = server.ask("INFO", "commandstats").splitlines()
    return sum(
        int(line.split("calls=")[1].split(",")[0])
        for line in lines
        if line.startswith(("cmdstat_eval:", "cmdstat_evalsha:"))
    )


def spread(expected: Mapping[str, float], began: Mapping[str, float]) -> Sequence[float]:
    """Return how many milliseconds after the expected moment each job began, in order."""
    return sorted((began[job] - moment) * 1000 for job, moment in expected.items())


def named(what: str, milliseconds: Sequence[float]) -> dict[str, float]:
    centiles = statistics.quantiles(milliseconds, n=100)
    return {f"{what}P50Ms": centiles[49], f"{what}P99Ms": centiles[98]}
