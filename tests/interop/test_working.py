"""What Node adds, our worker runs, and Node sees it happen."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from interop.aftermath import until
from interop.behaviours import Task, behave
from interop.node_peer import node_peer
from interop.our_worker import LIKE_NODE, our_worker
from worker_runtime.bullmq.names import QueueName
from worker_runtime.outcome import Done, Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from interop.node_peer import NodePeer
    from worker_runtime.job import Job
    from worker_runtime.redis.connection import RedisConnection

pytestmark = pytest.mark.needs("node", "npm")

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_node_sees_its_job_completed(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    await node.listen()
    async with our_worker(redis, redis_url, queue_name):
        job_id = (await node.queue("add", "complete", {"n": "welcome"}))["id"]
        heard = await node.hears("completed", jobId=job_id)
    assert heard["returnvalue"] == {"echoed": "welcome"}
    job = await node.queue("getJob", job_id)
    assert await node.job(job_id, "getState") == "completed"
    assert (job["returnvalue"], job["attemptsMade"], job["processedBy"]) == ({"echoed": "welcome"}, 1, "w")
    assert job["processedOn"] <= job["finishedOn"]
    # Node counts its milliseconds from its own start and drifts off the system's clock a little.
    assert abs(job["processedOn"] - job["timestamp"]) < 1_000
    assert [item["news"] for item in node.news] == ["added", "waiting", "active", "completed"]


async def test_node_sees_progress_and_retries_and_the_end(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    await node.listen()
    async with our_worker(redis, redis_url, queue_name):
        await node.queue("add", "progress", {"steps": {"done": 3}}, {"jobId": "steps"})
        assert (await node.hears("progress", jobId="steps"))["data"] == {"done": 3}
        task = {"times": 9, "says": "the gateway is closed"}
        await node.queue("add", "fail", task, {"jobId": "poor", "attempts": 2, "backoff": 20})
        await node.hears("delayed", jobId="poor")
        failed = await node.hears("failed", jobId="poor")
        await node.hears("retries-exhausted", jobId="poor")
    assert failed["failedReason"] == "HANDLER_FAILED: RuntimeError: the gateway is closed"
    job = await node.queue("getJob", "poor")
    assert (job["attemptsMade"], job["failedReason"]) == (2, failed["failedReason"])
    assert len(job["stacktrace"]) == 2
    assert "behaviours.py" in job["stacktrace"][0]
    assert (await node.queue("getJob", "steps"))["progress"] == {"done": 3}


async def test_node_retries_our_dead_letter(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    await node.listen()
    async with our_worker(redis, redis_url, queue_name):
        await node.queue("add", "fail", {"times": 1, "says": "no"}, {"jobId": "one"})
        await node.hears("failed", jobId="one")
        await node.job("one", "retry", "failed")
        await node.hears("completed", jobId="one")
    assert (await node.queue("getJob", "one"))["attemptsMade"] == 2


async def test_a_trace_reaches_our_handler_and_comes_back_from_node(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    options = {"jobId": "one", "telemetry": {"metadata": json.dumps({"traceparent": TRACEPARENT})}}
    await node.listen()
    async with our_worker(redis, redis_url, queue_name):
        await node.queue("add", "context", {}, options)
        heard = await node.hears("completed", jobId="one")
    assert json.loads(heard["returnvalue"]["metadata"])["traceparent"] == TRACEPARENT
    await node.work()
    await node.queue("add", "context", {}, {**options, "jobId": "two"})
    assert json.loads((await node.hears("completed", jobId="two"))["returnvalue"]["metadata"]) == {
        "traceparent": TRACEPARENT
    }


async def test_node_counts_our_worker(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    async def one_worker() -> bool:
        return [worker["rawname"] for worker in await node.queue("getWorkers")] == [queue_name.client_name("w")]

    assert await node.queue("getWorkers") == []
    async with our_worker(redis, redis_url, queue_name):
        await until(one_worker)
        await node.queue("add", "complete", {}, {"jobId": "one"})
        await until(one_worker)
    assert await node.queue("getWorkers") == []


async def test_a_job_that_runs_here_cannot_be_removed_by_node_but_its_queue_can(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def hold(job: Job[Task]) -> Outcome:
        started.set()
        await release.wait()
        return Done()

    await node.listen()
    async with our_worker(redis, redis_url, queue_name, handle=hold) as ours:
        await node.queue("add", "complete", {}, {"jobId": "kept"})
        await asyncio.wait_for(started.wait(), 5)
        assert await node.queue("remove", "kept") == 0
        release.set()
        await node.hears("completed", jobId="kept")
        started.clear()
        release.clear()
        await node.queue("add", "complete", {}, {"jobId": "gone"})
        await asyncio.wait_for(started.wait(), 5)
        await node.queue("obliterate", {"force": True})
        release.set()
        await node.queue("add", "complete", {}, {"jobId": "next"})
        await node.hears("completed", jobId="next")
    assert ours.ids == ["kept", "gone", "next"]
    assert await node.queue("getJob", "gone") is None


async def test_a_family_is_worked_by_both(
    packages: Path, node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    """Children here, the parent in Node; then the other way round."""
    parents = QueueName(queue_name.prefix, "digest")

    def family(parent_id: str, parent: str) -> dict[str, object]:
        children = [
            {"name": "complete", "queueName": "email", "data": {"n": n}, "opts": {"jobId": f"{parent_id}-{n}"}}
            for n in range(3)
        ]
        opts = {"jobId": parent_id}
        return {"name": parent, "queueName": "digest", "data": {"n": 9}, "children": children, "opts": opts}

    async with node_peer(packages, redis_url, parents) as digest:
        await digest.listen()
        await digest.flow("add", family("first", "children"))
        await digest.work()
        async with our_worker(redis, redis_url, queue_name):
            children = (await digest.hears("completed", jobId="first"))["returnvalue"]
        await digest.stop_working()
        results = {f"{queue_name.key('')}first-{n}": {"echoed": n} for n in range(3)}
        assert children == {"results": results, "failures": {}}

        await digest.flow("add", family("second", "complete"))
        async with our_worker(redis, redis_url, parents) as ours:
            await digest.hears("waiting-children", jobId="second")
            await node.work()
            assert (await digest.hears("completed", jobId="second"))["returnvalue"] == {"echoed": 9}
        assert ours.ids == ["second"]


async def test_a_job_scheduler_s_next_job_is_made_when_ours_runs_the_one_before(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    await node.listen()
    await node.queue("upsertJobScheduler", "tick", {"every": 200}, {"name": "complete", "data": {"n": 1}})
    async with our_worker(redis, redis_url, queue_name):
        await node.hears_many(3, "completed", within=3)
    assert (await node.queue("getJobScheduler", "tick"))["iterationCount"] >= 3


async def test_a_cron_schedule_goes_on_under_our_worker(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    await node.listen()
    cron = {"pattern": "* * * * * *", "limit": 3, "tz": "Europe/Berlin"}
    await node.queue("upsertJobScheduler", "tick", cron, {"name": "complete", "data": {"n": 1}})
    async with our_worker(redis, redis_url, queue_name):
        await node.hears_many(3, "completed", within=6)
    # The third was the last: the schedule's limit.
    counts = await node.queue("getJobCounts")
    assert counts["delayed"] + counts["waiting"] == 0


async def test_a_global_limit_on_concurrency_set_by_node_is_kept(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    running = most = 0

    async def count(job: Job[Task]) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        outcome = await behave(job)
        running -= 1
        return outcome

    await node.queue("setGlobalConcurrency", 2)
    await node.queue("addBulk", [{"name": "progress", "data": {"steps": n}} for n in range(50)])
    await node.listen()
    async with our_worker(redis, redis_url, queue_name, replace(LIKE_NODE, concurrency=10), count):
        await node.hears_many(50, "completed")
    assert most == 2


NONSENSE = {
    "unknown": {"type": "fibonacci", "delay": 5},
    "a word": "exponential",
    "a list": [1, 2],
    "not a number": {"type": "fixed", "delay": "soon"},
    "no name": {"type": [], "delay": 5},
    "odd jitter": {"type": "fixed", "delay": 5, "jitter": "some"},
}


async def test_a_back_off_that_nobody_can_compute_is_a_dead_letter_and_harms_nobody(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    await node.listen()
    for name, backoff in NONSENSE.items():
        options = {"jobId": name, "attempts": 3, "backoff": backoff}
        await node.queue("add", "fail", {"times": 1, "says": "no"}, options)
    await node.queue("add", "complete", {}, {"jobId": "last"})
    async with our_worker(redis, redis_url, queue_name):
        await node.hears("completed", jobId="last")
        failed = await node.hears_many(len(NONSENSE), "failed")
    assert {item["jobId"] for item in failed} == set(NONSENSE)
