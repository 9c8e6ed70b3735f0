"""Engines started and stopped, in every phase of their work, under a load that never ends: nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from engine_harness import QUICK, Bench, bench, until
from fault_proxy import FaultProxy
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.bullmq.settlement import Complete, Delay, Settlement
from worker_runtime.redis.cluster import redis_connection

if TYPE_CHECKING:
    from worker_runtime.bullmq.leases import Lease

AT_ONCE = 4
ENOUGH_WAITING = 200
SLOWEST_JOB_SECONDS = 0.02
# No lock expires and nothing is recovered, so that a job left behind stays where it is.
PATIENT = replace(QUICK, concurrency=5, lock_ms=60_000)
GRACES = (0.0, 0.0, 0.005, 0.05, 5.0)


@dataclass
class Accounts:
    """What became of each job, as its handler saw it."""

    chance: Random
    begun: Counter[str] = field(default_factory=Counter)
    # Runs whose lease had been given up when they ended: these do not count.
    given_up: Counter[str] = field(default_factory=Counter)
    wanted: dict[str, int] = field(default_factory=dict)

    async def execute(self, lease: Lease) -> Settlement:
        job = str(lease.job)
        self.begun[job] += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60) as lease.scope:
                # The job's work.
                await asyncio.sleep(self.chance.choice((0, 0, self.chance.uniform(0, SLOWEST_JOB_SECONDS))))
        lease.scope = None
        if lease.gone:
            self.given_up[job] += 1
        return self._end(lease)

    def _end(self, lease: Lease) -> Settlement:
        if lease.job.attempts_made or b"put off" in lease.job.fields:
            return Complete()
        match lease.job.name:
            case "again":
                return Delay(0, costs_attempt=True)
            case "waits":
                return Delay(3, costs_attempt=True)
            case "defers":
                return Delay(2, costs_attempt=False, fields={"put off": "once"})
        return Complete()

    def new_jobs(self, number: int) -> list[NewJob]:
        jobs = []
        for _ in range(number):
            kind = self.chance.choice(("plain", "plain", "plain", "again", "waits", "defers"))
            job = NewJob(kind, {}, job_id=f"{kind}-{len(self.wanted)}", priority=self.chance.choice((0, 0, 0, 7)))
            self.wanted[str(job.job_id)] = 1 if kind == "plain" else 2
            jobs.append(job)
        return jobs


async def produce(queue: Bench, accounts: Accounts) -> None:
    """Keep some jobs waiting, for ever."""
    while True:
        missing = ENOUGH_WAITING - (await queue.queue.counts()).depth
        await queue.queue.add_bulk(accounts.new_jobs(max(0, missing)))
        await asyncio.sleep(0.002)  # So that the queue may run low in between.


async def start_and_stop(queue: Bench, url: str, accounts: Accounts, name: str, longest: float) -> float:
    """Live one engine's short life on connections of its own; return by how much it outstayed its grace."""
    chance, redis = accounts.chance, redis_connection(url, client_name=f"engine {name}", timeout_seconds=10)
    await redis.open()
    async with queue.engine(accounts.execute, PATIENT, token=name, redis=redis, blocking_url=url) as running:
        await asyncio.sleep(chance.choice((0, chance.uniform(0, longest / 10), chance.uniform(0, longest))))
        grace, began = chance.choice(GRACES), time.monotonic()
        if chance.random() < 0.2:
            running.stop.request(10)
        await running.finish(grace)
        late = time.monotonic() - began - grace
    assert await running.engine.scripts.held_by_us() == set()
    await redis.close()
    return late


@pytest.mark.parametrize(("cycles", "longest", "answer_delay"), [(1_000, 0.05, 0.0), (150, 0.25, 0.01)])
async def test_engines_started_and_stopped_at_random_under_load_leave_nothing_behind(
    redis_url: str, cycles: int, longest: float, answer_delay: float
) -> None:
    """Of several at once, on one queue. Slow answers make a stop fall between what Redis did and what we know of it."""
    accounts, names, files = Accounts(Random(11)), iter(range(cycles)), open_files()
    async with bench(redis_url) as queue:
        tasks = asyncio.all_tasks()
        producer = asyncio.create_task(produce(queue, accounts))
        async with FaultProxy(redis_url, answer_delay=answer_delay) as proxy:

            async def one_after_another() -> list[float]:
                url = proxy.url if answer_delay else redis_url
                return [await start_and_stop(queue, url, accounts, f"engine-{number}", longest) for number in names]

            late = await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
        producer.cancel()
        await asyncio.wait({producer})
        async with queue.engine(accounts.execute, PATIENT, token="last"):
            await queue.finished(len(accounts.wanted))
        await until(lambda: nobody_is_connected(queue))
        assert asyncio.all_tasks() == tasks
        assert await queue.redis.call("KEYS", queue.queue.name.key("*:lock")) == []
        counts = await queue.queue.counts()
    assert (counts.completed, counts.depth, counts.active, counts.delayed) == (len(accounts.wanted), 0, 0, 0)
    assert accounts.begun == Counter(accounts.wanted) + accounts.given_up
    assert accounts.given_up
    # No lease was lost, nothing had to be recovered.
    assert queue.tally.seen.keys() == {"handed_back"}
    assert max(map(max, late)) < 2
    assert open_files() == files


async def nobody_is_connected(queue: Bench) -> bool:
    clients = (await queue.redis.call("CLIENT", "LIST")).decode()
    return "name=engine" not in clients and "name=blocking" not in clients


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
