"""The worker's wall clock jumps while it works: forward by an hour, back by an hour.

What depends on it, as with Node's workers, is when a delayed job is due: BullMQ writes the moment down by the clock of
whoever delays it and compares it with the clock of whoever fetches. So a job delayed before a step runs early or late
by the step, as far as nobody else's clock makes it due before; so do a retry's delay, a deferral and the next turn of
a schedule. Nothing else does: locks, rate limits and stalled checks live by Redis' clock, waits by a clock that never
jumps.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from engine_harness import QUICK, Bench, Running, bench, until
from fault_proxy import FaultProxy
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.bullmq.settlement import Complete, Delay, Settlement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker_runtime.bullmq.leases import Lease

HOUR = 3_600.0
MINUTE_MS = 60_000
STEPS = pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])


class SteppedClock:
    """What every `time.time()` of this process says."""

    def __init__(self) -> None:
        self.offset = 0.0
        self._right = time.time

    def __call__(self) -> float:
        return self._right() + self.offset


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SteppedClock:
    stepped = SteppedClock()
    monkeypatch.setattr(time, "time", stepped)
    return stepped


@pytest.fixture
async def queue(redis_url: str, clock: SteppedClock) -> AsyncIterator[Bench]:
    async with bench(redis_url) as opened:
        yield opened


@STEPS
async def test_work_goes_on_over_a_step(queue: Bench, clock: SteppedClock, step: float) -> None:
    """With retries, deferrals, and jobs that take longer than a lock lives; each runs as often as it should."""
    long_ones_may_end, halfway = asyncio.Event(), asyncio.Event()

    async def execute(lease: Lease) -> Settlement:
        kind = lease.job.name
        if len(queue.ran) == 150:
            halfway.set()
        if kind == "long":
            await long_ones_may_end.wait()
        elif kind == "fails" and not lease.job.attempts_made:
            return Delay(30, costs_attempt=True)
        elif kind == "defers" and b"put off" not in lease.job.fields:
            return Delay(20, costs_attempt=False, fields={"put off": "once"})
        await asyncio.sleep(0.005)  # The job's work, so that the step falls into the middle.
        return Complete()

    kinds = ["long", "long", *["plain", "fails", "defers"] * 100]
    await queue.queue.add_bulk([NewJob(kind, {}, job_id=f"{kind}-{n}") for n, kind in enumerate(kinds)])
    async with queue.engine(execute):
        await asyncio.wait_for(halfway.wait(), 10)
        clock.offset = step
        await until(lambda: only_these_are_active(queue, 2))
        await asyncio.sleep(QUICK.lock_ms / 1000 * 1.5)  # Longer than an unrenewed lock lives.
        # Those delayed before a step back are due by the old clock only.
        clock.offset = max(0.0, step)
        long_ones_may_end.set()
        await queue.finished(len(kinds))
    again = ("fails", "defers")
    assert Counter(queue.ran) == Counter({f"{kind}-{n}": 1 + (kind in again) for n, kind in enumerate(kinds)})
    assert not queue.tally.seen


async def only_these_are_active(queue: Bench, number: int) -> bool:
    counts = await queue.queue.counts()
    return counts.active == number and counts.waiting == 0


async def test_a_step_forward_brings_delayed_jobs_early(queue: Bench, clock: SteppedClock) -> None:
    await queue.queue.add(NewJob("job", {}, job_id="soon", delay_ms=30 * MINUTE_MS))
    await queue.queue.add(NewJob("job", {}, job_id="later", delay_ms=90 * MINUTE_MS))
    async with queue.engine() as running:
        await until(lambda: knows_of_a_delay(running))
        clock.offset = HOUR
        await queue.finished(1, within=5)
    assert queue.ran == ["soon"]
    assert await queue.ids("delayed") == ["later"]


async def knows_of_a_delay(running: Running) -> bool:
    return running.engine._waiter.knows_of_delayed


async def test_a_step_back_makes_delayed_jobs_late_and_no_others(queue: Bench, clock: SteppedClock) -> None:
    await queue.queue.add(NewJob("job", {}, job_id="put off", delay_ms=3_000))
    async with queue.engine() as running:
        await until(lambda: knows_of_a_delay(running))
        clock.offset = -HOUR
        await queue.queue.add(NewJob("job", {}, job_id="new"))
        await queue.queue.add(NewJob("job", {}, job_id="put off by the new clock", delay_ms=50))
        await queue.finished(2, within=5)
        assert await queue.ids("delayed") == ["put off"]
        clock.offset = 0.0
        await queue.finished(3, within=10)
    assert Counter(queue.ran) == Counter(["new", "put off by the new clock", "put off"])


@STEPS
async def test_an_idle_worker_stays_calm_over_a_step(redis_url: str, clock: SteppedClock, step: float) -> None:
    """Both its connections are counted; once a second or so it may look."""
    async with FaultProxy(redis_url) as proxy, bench(proxy.url) as queue:
        await queue.queue.add(NewJob("job", {}, delay_ms=90 * MINUTE_MS))
        await queue.queue.add(NewJob("job", {}, delay_ms=30 * MINUTE_MS))
        calm = replace(QUICK, lock_ms=60_000, renew_seconds=30, stalled_interval_ms=30_000)
        async with queue.engine(options=calm) as running:
            await until(lambda: knows_of_a_delay(running))
            clock.offset, commands = step, len(proxy.commands)
            await asyncio.sleep(3)  # While hardly anything should happen.
            assert len(proxy.commands) - commands < 30
        # Due within the hour is one of them.
        assert queue.ran == (["2"] if step > 0 else [])
