"""The queue engine against a real server: what a job may rely on."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from engine_harness import QUEUE, QUICK, Bench, bench, counts_by_window, payload, until
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.bullmq.scripts import Limit
from worker_runtime.bullmq.settlement import Complete, Delay, Fail, HandBack, Settlement
from worker_runtime.bullmq.settler import retention

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker_runtime.bullmq.leases import Lease


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Bench]:
    async with bench(redis_url) as opened:
        yield opened


def jobs(number: int) -> list[NewJob]:
    return [NewJob("job", {"n": n}, job_id=f"job-{n}") for n in range(number)]


async def test_a_backlog_runs_once_in_order_and_is_kept_as_completed(queue: Bench) -> None:
    await queue.queue.add_bulk(jobs(500))
    async with queue.engine(options=replace(QUICK, concurrency=1)):
        await queue.finished(500)
    assert queue.ran == [f"job-{n}" for n in range(500)]
    done = await queue.hash("job-7")
    assert (done["atm"], done["returnvalue"]) == ("1", "null")
    assert await queue.ids("active") == []


async def test_adding_an_id_twice_runs_it_once(queue: Bench) -> None:
    assert await queue.queue.add_bulk(jobs(3)) == await queue.queue.add_bulk(jobs(3))
    async with queue.engine():
        await queue.finished(3)
        await queue.queue.add_bulk(jobs(3))
        await until_idle(queue)
    assert sorted(queue.ran) == ["job-0", "job-1", "job-2"]


async def until_idle(queue: Bench) -> None:
    async def idle() -> bool:
        counts = await queue.queue.counts()
        return counts.depth + counts.active + counts.delayed == 0

    await until(idle)


async def test_a_failed_attempt_waits_and_then_runs_again(queue: Bench) -> None:
    ends: list[Settlement] = [
        Delay(150, costs_attempt=True, fields={"failedReason": "SLOW: once"}, stack="first"),
        Delay(0, costs_attempt=True, fields={"failedReason": "NOW: twice"}, stack="second"),
        Fail("ENOUGH: three times", "third"),
    ]
    times: list[float] = []

    async def execute(lease: Lease) -> Settlement:
        times.append(time.monotonic())
        return ends[lease.job.attempts_made]

    await queue.queue.add(NewJob("job", {}, job_id="one"))
    async with queue.engine(execute):
        await queue.finished(1)
    assert 0.14 <= times[1] - times[0] <= 0.45
    failed = await queue.hash("one")
    assert (failed["atm"], failed["failedReason"]) == ("3", "ENOUGH: three times")
    assert json.loads(failed["stacktrace"]) == ["first", "second", "third"]
    assert await queue.ids("failed") == ["one"]


async def test_a_deferral_costs_no_attempt(queue: Bench) -> None:
    async def execute(lease: Lease) -> Settlement:
        if len(queue.ran) < 4:
            return Delay(20, costs_attempt=False, fields={"failedReason": "LATER: limit"})
        assert lease.job.attempts_made == 0
        return Complete()

    await queue.queue.add(NewJob("job", {}, job_id="one"))
    async with queue.engine(execute):
        await queue.finished(1)
    assert queue.ran == ["one"] * 4
    assert (await queue.hash("one"))["atm"] == "1"


async def test_urgent_first_then_in_order_then_by_priority_which_a_retry_keeps(queue: Bench) -> None:
    add = queue.queue.add
    for job_id, priority in (("low", 100), ("lower", 200), ("high", 1)):
        await add(NewJob("job", {}, job_id=job_id, priority=priority))
    await add(NewJob("job", {}, job_id="first"))
    await add(NewJob("job", {}, job_id="second"))
    await add(NewJob("job", {}, job_id="urgent", lifo=True))

    async def execute(lease: Lease) -> Settlement:
        again = lease.job.id == b"low" and lease.job.attempts_made == 0
        return Delay(0, costs_attempt=True, fields={"failedReason": "AGAIN: once"}) if again else Complete()

    async with queue.engine(execute, replace(QUICK, concurrency=1)):
        await queue.finished(6)
    assert queue.ran == ["urgent", "first", "second", "high", "low", "low", "lower"]


async def test_urgent_jobs_have_slots_that_no_other_job_gets(queue: Bench) -> None:
    release = asyncio.Event()

    async def held_unless_urgent(lease: Lease) -> Settlement:
        if lease.job.id != b"urgent":
            await release.wait()
        return Complete()

    async def ran(number: int) -> bool:
        return len(queue.ran) == number

    await queue.queue.add_bulk(jobs(6))
    async with queue.engine(held_unless_urgent, replace(QUICK, concurrency=2, reserve=1)):
        await until(lambda: ran(2))
        for _ in range(3):
            await queue.queue.add(NewJob("job", {}, job_id="urgent", lifo=True))
            await queue.finished(1)
            await queue.queue.remove_finished(["urgent"])
        assert queue.ran == ["job-0", "job-1", "urgent", "urgent", "urgent"]
        release.set()
        await queue.finished(6)
    assert len(queue.ran) == 9


async def test_delayed_jobs_are_not_late(queue: Bench) -> None:
    late: list[float] = []

    async def execute(lease: Lease) -> Settlement:
        late.append(time.time() - payload(lease)["due"])
        return Complete()

    async with queue.engine(execute):
        for milliseconds in range(50, 550, 25):
            due = time.time() + milliseconds / 1000
            await queue.queue.add(NewJob("job", {"due": due}, delay_ms=milliseconds))
        await queue.finished(20)
    assert min(late) >= -0.002
    assert sorted(late)[10] < 0.025


async def test_a_delayed_job_wakes_a_worker_whose_only_slot_was_busy(queue: Bench) -> None:
    release = asyncio.Event()

    async def execute(lease: Lease) -> Settlement:
        if lease.job.name == "long":
            await release.wait()
        return Complete()

    async with queue.engine(execute, replace(QUICK, concurrency=1)):
        await queue.queue.add(NewJob("soon", {}, delay_ms=50))
        await queue.queue.add(NewJob("long", {}))
        await until(lambda: is_true(len(queue.ran) == 1))
        # A second worker gets what the first has no slot for.
        async with queue.engine(execute, token="second"):
            await queue.finished(1, within=2)
        release.set()
        await queue.finished(2)


async def is_true(value: bool) -> bool:  # noqa: FBT001  a condition for `until`
    return value


async def test_the_limiter_holds_over_two_workers_and_is_used(queue: Bench) -> None:
    starts: list[float] = []

    async def execute(lease: Lease) -> Settlement:
        starts.append(time.monotonic())
        return Complete()

    await queue.queue.add_bulk(jobs(20))
    limited = replace(QUICK, limit=Limit(5, 300))
    async with queue.engine(execute, limited), queue.engine(execute, limited, token="second"):
        await queue.finished(20)
    # Seen when a handler runs, a little after Redis counted it.
    assert max(counts_by_window(starts, 0.25)) == 5
    assert max(starts) - min(starts) < 1.8


async def test_paused_queues_rest_until_resumed(queue: Bench) -> None:
    await queue.queue.pause()
    await queue.queue.add_bulk(jobs(5))
    async with queue.engine() as running:
        await asyncio.wait_for(running.engine.idle.wait(), 5)
        assert (await queue.queue.counts()).waiting == 5
        assert (await queue.queue.counts()).paused
        await queue.queue.resume()
        await queue.finished(5, within=3)


async def test_global_concurrency_set_by_node_is_kept(queue: Bench) -> None:
    running = most = 0

    async def execute(lease: Lease) -> Settlement:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)  # The job's work.
        running -= 1
        return Complete()

    await queue.redis.call("HSET", QUEUE.key("meta"), "concurrency", 3)
    await queue.queue.add_bulk(jobs(60))
    async with queue.engine(execute):
        await queue.finished(60)
    assert most == 3


async def test_jobs_past_the_deadline_return_to_the_head_in_order_unburnt(queue: Bench) -> None:
    interrupted: list[str] = []

    async def execute(lease: Lease) -> Settlement:
        try:
            async with asyncio.timeout(60) as lease.scope:
                await asyncio.sleep(60)  # Longer than any test waits.
        except TimeoutError:
            interrupted.append(lease.job.id.decode())
        return Complete()

    await queue.queue.add_bulk(jobs(30))
    async with queue.engine(execute) as running:
        await until(lambda: is_true(running.engine.in_flight == 10))
        started = time.monotonic()
        await running.finish(grace=0)
        assert time.monotonic() - started < 1
    assert len(interrupted) == 10
    assert list(reversed(await queue.ids("wait"))) == [f"job-{n}" for n in range(30)]
    assert "atm" not in await queue.hash("job-0")
    assert queue.tally.seen["handed_back"] == 10


async def test_a_prioritised_job_handed_back_wakes_another_worker(queue: Bench) -> None:
    async def first(lease: Lease) -> Settlement:
        return HandBack(60)

    await queue.queue.add(NewJob("job", {}, job_id="one", priority=5))
    async with queue.engine(first), queue.engine(token="second"):
        await queue.finished(1, within=3)


async def test_a_hold_leaves_jobs_waiting_in_order(queue: Bench) -> None:
    async def execute(lease: Lease) -> Settlement:
        return HandBack(0.3) if len(queue.ran) == 1 else Complete()

    await queue.queue.add_bulk(jobs(5))
    async with queue.engine(execute, replace(QUICK, concurrency=1)):
        await until(lambda: is_true(len(queue.ran) == 1))
        assert (await queue.queue.counts()).waiting + (await queue.queue.counts()).active == 5
        await queue.finished(5)
    assert queue.ran == ["job-0", "job-0", "job-1", "job-2", "job-3", "job-4"]


async def test_a_closed_gate_keeps_everything_in_wait(queue: Bench) -> None:
    shut = True

    async def gate() -> float:
        return 0.05 if shut else 0.0

    await queue.queue.add_bulk(jobs(5))
    async with queue.engine(gate=gate) as running:
        await until(lambda: is_true(running.engine._held_until > 0))
        assert (await queue.queue.counts()).waiting == 5
        shut = False
        await queue.finished(5)


async def test_a_dead_worker_s_jobs_run_elsewhere_and_the_third_death_marks_them(queue: Bench) -> None:
    stuck = asyncio.Event()

    async def forever(lease: Lease) -> Settlement:
        stuck.set()
        await asyncio.Event().wait()
        return Complete()

    await queue.queue.add(NewJob("job", {}, job_id="one"))
    for _ in range(3):
        stuck.clear()
        async with queue.engine(forever) as victim:
            await asyncio.wait_for(stuck.wait(), 10)
            await victim.die()
    marks: list[bytes | None] = []

    async def survivor(lease: Lease) -> Settlement:
        marks.append(lease.job.fields.get(b"defa"))
        return Fail("STALLED: seen")

    async with queue.engine(survivor, token="survivor"):
        await queue.finished(1)
    assert marks == [b"job stalled more than allowable limit"]
    assert queue.tally.seen["recovered"] == 3


async def test_a_lost_lease_interrupts_the_handler_and_fences_its_end(queue: Bench) -> None:
    started, interrupted = asyncio.Event(), asyncio.Event()

    async def execute(lease: Lease) -> Settlement:
        started.set()
        try:
            async with asyncio.timeout(30) as lease.scope:
                await asyncio.sleep(30)  # Until it is interrupted.
        except TimeoutError:
            interrupted.set()
        return Complete()

    await queue.queue.add(NewJob("job", {}, job_id="one"))
    async with queue.engine(execute):
        await asyncio.wait_for(started.wait(), 5)
        await queue.redis.call("SET", QUEUE.key("one:lock"), "somebody else", "PX", 60_000)
        await asyncio.wait_for(interrupted.wait(), 5)
    assert await queue.ids("active") == ["one"]
    assert queue.tally.seen["lease_lost"] == 1


async def test_a_job_removed_while_it_runs_harms_nobody(queue: Bench) -> None:
    async def execute(lease: Lease) -> Settlement:
        if lease.job.id == b"job-1":
            await queue.redis.call("DEL", QUEUE.key("job-1"), QUEUE.key("job-1:lock"))
            await queue.redis.call("LREM", QUEUE.key("active"), 1, "job-1")
        return Complete()

    await queue.queue.add_bulk(jobs(5))
    async with queue.engine(execute, replace(QUICK, concurrency=1)):
        await queue.finished(4)
        await until_idle(queue)
    assert "job-1" not in await queue.ids("completed")


async def test_retention_of_a_job_wins_over_the_queue_s(queue: Bench) -> None:
    await queue.queue.add_bulk([NewJob("job", {}, options={"removeOnComplete": 3}) for _ in range(10)])
    await queue.queue.add(NewJob("job", {}, job_id="gone", options={"removeOnComplete": True}))
    async with queue.engine(options=replace(QUICK, concurrency=1)):
        await until_idle(queue)
    assert (await queue.queue.counts()).completed == 3
    assert await queue.hash("gone") == {}


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (True, {"count": 0}),
        (False, {"count": -1}),
        (5, {"count": 5}),
        ({"age": 60, "count": 7, "extra": "x"}, {"age": 60, "count": 7}),
        (None, {"age": 1}),
        ("nonsense", {"age": 1}),
    ],
)
def test_retention_is_read_as_node_reads_it(asked: object, kept: dict[str, int]) -> None:
    assert retention(asked, {"age": 1}) == kept


async def test_script_flush_is_not_noticed(queue: Bench) -> None:
    async def execute(lease: Lease) -> Settlement:
        if len(queue.ran) % 10 == 0:
            await queue.redis.call("SCRIPT", "FLUSH")
        return Complete()

    await queue.queue.add_bulk(jobs(100))
    async with queue.engine(execute):
        await queue.finished(100)
    assert len(queue.ran) == 100


async def test_starting_and_stopping_under_load_orphans_nothing(queue: Bench) -> None:
    await queue.queue.add_bulk(jobs(3_000))
    cycles = 0
    while (await queue.queue.counts()).completed < 3_000:
        async with queue.engine(token=f"cycle-{cycles}") as running:
            # Varied, so that the stop falls into every phase of fetching and settling.
            await asyncio.sleep(cycles % 13 / 1000)
            await running.finish(grace=5)
        assert await queue.ids("active") == []
        cycles += 1
    assert len(queue.ran) == 3_000
    assert cycles > 10


async def test_held_jobs_keep_their_order_however_their_handlers_end(queue: Bench) -> None:
    async def execute(lease: Lease) -> Settlement:
        if len(queue.ran) <= 3:
            # The first takes longest.
            await asyncio.sleep({b"job-0": 0.009, b"job-1": 0.004}.get(lease.job.id, 0))
            return HandBack(0.2)
        return Complete()

    await queue.queue.add_bulk(jobs(6))
    async with queue.engine(execute, replace(QUICK, concurrency=3)):
        await until(lambda: is_true(len(queue.ran) == 3))
        await until(lambda: nothing_active(queue))
        assert list(reversed(await queue.ids("wait"))) == [f"job-{n}" for n in range(6)]
        await queue.finished(6)


async def nothing_active(queue: Bench) -> bool:
    return await queue.ids("active") == []


async def test_a_second_signal_is_heeded_while_the_blocking_connection_cannot_connect(queue: Bench) -> None:
    started = asyncio.Event()

    async def execute(lease: Lease) -> Settlement:
        started.set()
        try:
            async with asyncio.timeout(60) as lease.scope:
                await asyncio.sleep(60)  # Until it is interrupted.
        except TimeoutError:
            return Complete()
        return Complete()

    await queue.queue.add(NewJob("job", {}, job_id="one"))
    async with queue.engine(execute, blocking_url="redis://127.0.0.1:1/0") as running:
        await asyncio.wait_for(started.wait(), 5)
        began = time.monotonic()
        await running.finish(grace=0)
        assert time.monotonic() - began < 2
    assert await queue.ids("wait") == ["one"]
