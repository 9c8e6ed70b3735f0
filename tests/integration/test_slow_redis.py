"""A Redis whose every answer is a fifth of a second late, as one across an ocean or one that is overworked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from engine_harness import QUICK, Bench, bench, until
from fault_proxy import FaultProxy
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.bullmq.settlement import Complete, Settlement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker_runtime.bullmq.leases import Lease

LATE = 0.2


@pytest.fixture
async def slow(redis_url: str) -> AsyncIterator[Bench]:
    async with FaultProxy(redis_url, answer_delay=LATE) as proxy, bench(proxy.url) as opened:
        yield opened


@pytest.fixture
async def direct(redis_url: str) -> AsyncIterator[Bench]:
    async with bench(redis_url) as opened:
        yield opened


async def test_a_full_queue_costs_round_trips_by_its_length_over_the_concurrency(slow: Bench, direct: Bench) -> None:
    """Fifty jobs at a time are ten rounds for 500, and some until there are fifty; one at a time would be 500."""
    jobs = [f"job-{n}" for n in range(500)]
    await direct.queue.add_bulk([NewJob("job", {}, job_id=job) for job in jobs])
    began = time.monotonic()
    async with slow.engine(options=replace(QUICK, concurrency=50, lock_ms=10_000)):
        await direct.finished(len(jobs))
        rounds = (time.monotonic() - began) / LATE
    assert rounds < 30
    assert Counter(slow.ran) == Counter(jobs)
    assert await direct.ids("active") == []


async def test_adding_many_costs_a_round_trip_for_each_chunk(slow: Bench, direct: Bench) -> None:
    await slow.redis.call("PING")
    began = time.monotonic()
    await slow.queue.add_bulk([NewJob("job", {}, job_id=f"job-{n}") for n in range(1_000)])
    assert (time.monotonic() - began) / LATE < 15
    assert (await direct.queue.counts()).waiting == 1_000


async def test_a_lock_of_a_second_outlives_a_job_of_three(slow: Bench, direct: Bench) -> None:
    """While another worker, to whom Redis is near, looks for stalled jobs all the time."""

    async def execute(lease: Lease) -> Settlement:
        await asyncio.sleep(3)  # The job's work.
        return Complete()

    await direct.queue.add_bulk([NewJob("job", {}, job_id=f"job-{n}") for n in range(10)])
    async with slow.engine(execute):
        # Else the other one would take some.
        await until(lambda: all_claimed(slow))
        async with direct.engine(token="near"):
            await direct.finished(10)
    assert sorted(slow.ran) == [f"job-{n}" for n in range(10)]
    assert direct.ran == []
    assert not (slow.tally.seen + direct.tally.seen)


async def all_claimed(queue: Bench) -> bool:
    return len(queue.ran) == 10


async def test_a_stop_keeps_its_deadline(slow: Bench, direct: Bench) -> None:
    started = asyncio.Event()

    async def execute(lease: Lease) -> Settlement:
        started.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60) as lease.scope:
                await asyncio.sleep(60)  # Longer than the grace.
        return Complete()

    await direct.queue.add(NewJob("job", {}, job_id="one"))
    async with slow.engine(execute) as running:
        await asyncio.wait_for(started.wait(), 10)
        began = time.monotonic()
        await running.finish(grace=1)
        assert time.monotonic() - began < 4
    assert await direct.ids("wait") == ["one"]
    assert await direct.ids("active") == []


async def test_an_idle_worker_is_woken_after_two_round_trips(slow: Bench, direct: Bench) -> None:
    ran = asyncio.Event()

    async def execute(lease: Lease) -> Settlement:
        ran.set()
        return Complete()

    async with slow.engine(execute) as running:
        await asyncio.wait_for(running.engine.idle.wait(), 10)
        began = time.monotonic()
        await direct.queue.add(NewJob("job", {}))
        await asyncio.wait_for(ran.wait(), 10)
        # Without the wake-up it would be the five seconds of a blocking read.
        assert time.monotonic() - began < 2
