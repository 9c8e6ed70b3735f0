"""A handler that does not await is found out by name and line, and costs nobody their lease."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from engine_harness import QUEUE, bench
from tiny_process import TinyProcess, tiny
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.loop_guard import find_culprit

if TYPE_CHECKING:
    from engine_harness import Bench


async def blocks(worker: TinyProcess, queue: str) -> tuple[float, float]:
    """How often the event loop was blocked by that queue's handler, and for how many seconds in all."""
    text = (await worker.get("/metrics"))[1]
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {
        sample.name.removeprefix("intelliflow_event_loop_blocked_seconds_"): sample.value
        for sample in samples
        if sample.labels.get("queue") == queue
    }
    return found["count"], found["sum"]


async def add_block(queue: Bench, seconds: float) -> None:
    await queue.queue.add(NewJob("task", {"do": "block", "seconds": seconds}, job_id="the-job"))


async def test_a_handler_that_blocks_for_a_second_is_named_and_keeps_its_lease(redis_url: str) -> None:
    async with bench(redis_url) as queue, tiny(redis_url) as worker:
        await worker.said("worker_ready")
        assert await blocks(worker, QUEUE.label) == (0, 0)
        await add_block(queue, 1)
        line = await worker.said("event_loop_blocked")
        assert (line["queue"], line["jobId"], line["jobName"], line["attempt"]) == (QUEUE.label, "the-job", "task", 1)
        assert line["where"].startswith("tiny_worker.py:")
        assert line["where"].endswith(" handle")
        assert (line["level"], line["worker"], line["over"]) == ("warning", "tiny-worker", True)
        assert 0.8 <= line["seconds"] <= 1.6
        count, seconds = await blocks(worker, QUEUE.label)
        assert (count, round(seconds, 1)) == (1, line["seconds"])
        await queue.finished(1)
        assert (await queue.hash("the-job"))["atm"] == "1"
        assert not [line for line in worker.lines if line["event"] in ("lease_lost", "stalled_jobs_recovered")]


async def test_a_block_longer_than_the_renewals_loses_no_lease_to_another_worker(redis_url: str) -> None:
    # Locks of 5 s, renewed every second: four renewals are missed.
    locks = {"QUEUE_LOCK_DURATION_MS": "5000", "QUEUE_STALLED_INTERVAL_MS": "500"}
    async with bench(redis_url) as queue, tiny(redis_url, **locks) as one, tiny(redis_url, **locks) as other:
        await one.said("worker_ready")
        await other.said("worker_ready")
        await add_block(queue, 4)
        early = await asyncio.wait_for(first(one, other), 20)
        assert not early["over"]
        assert 2 <= early["seconds"] <= 3
        await queue.finished(1)
        started = [line for worker in (one, other) for line in worker.lines if line["event"] == "task_started"]
        assert len(started) == 1


async def first(*workers: TinyProcess) -> dict[str, Any]:
    """Wait for the first that says it is blocked."""
    waits = [asyncio.create_task(worker.said("event_loop_blocked")) for worker in workers]
    done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in pending:
        wait.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return done.pop().result()


async def test_waiting_is_not_blocking(redis_url: str) -> None:
    async with bench(redis_url) as queue, tiny(redis_url) as worker:
        await worker.said("worker_ready")
        await queue.queue.add(NewJob("task", {"do": "rest", "seconds": 1}))
        await queue.finished(1)
        assert await blocks(worker, QUEUE.label) == (0, 0)


def test_without_a_handler_on_the_stack_the_calls_themselves_are_told() -> None:
    culprit = find_culprit(sys._getframe())
    assert culprit.job is None
    assert "jobId" not in culprit.as_fields()
    assert culprit.calls[-1].endswith("test_without_a_handler_on_the_stack_the_calls_themselves_are_told")
    assert len(culprit.calls) == 6
