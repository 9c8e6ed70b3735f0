"""Node's workers and ours on one queue."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from engine_harness import counts_by_window
from interop.aftermath import until
from interop.node_peer import node_peer
from interop.our_process import our_process
from interop.our_worker import LIKE_NODE, our_worker
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.bullmq.scripts import Limit, now_ms
from worker_runtime.outcome import Done, Hold, Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from interop.behaviours import Task
    from interop.node_peer import NodePeer
    from worker_runtime.bullmq.names import QueueName
    from worker_runtime.job import Job
    from worker_runtime.redis.connection import RedisConnection

pytestmark = pytest.mark.needs("node", "npm")

QUICK_NODE = {"lockDuration": 1_000, "stalledInterval": 300, "maxStalledCount": 2}
QUICK_OURS: dict[str, Any] = {"lock_ms": 1_000, "renew_seconds": 0.2, "stalled_interval_ms": 300}
QUICK = replace(LIKE_NODE, **QUICK_OURS)


async def test_each_of_2000_jobs_runs_once_whoever_adds_and_whoever_works(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    queue = JobQueue(redis, queue_name)
    stumbles = {"times": 1, "says": "once"}
    await node.work(concurrency=5)
    async with our_worker(redis, redis_url, queue_name, replace(LIKE_NODE, concurrency=5)) as ours:
        for part in range(5):
            ids = [f"{part}-{n}" for n in range(199)]
            await queue.add_bulk([NewJob("complete", {"n": job_id}, job_id=f"ours-{job_id}") for job_id in ids])
            await node.queue(
                "addBulk", [{"name": "complete", "data": {"n": i}, "opts": {"jobId": f"theirs-{i}"}} for i in ids]
            )
            await queue.add(NewJob("fail", stumbles, job_id=f"ours-fails-{part}", options={"attempts": 2}))
            await node.queue("add", "fail", stumbles, {"jobId": f"theirs-fails-{part}", "attempts": 2, "backoff": 30})
        await until(lambda: all_completed(queue, 2_000), within=30)
    await node.stop_working()
    theirs = [item["jobId"] for item in node.news if item["news"] == "ran"]
    runs = Counter([*theirs, *ours.ids])
    assert runs.pop("ours-fails-0") == 2
    assert Counter(runs.values()) == {1: 1_990, 2: 9}
    assert theirs
    assert ours.ran
    assert await node.queue("getJobCounts", "active", "waiting", "delayed", "failed") == {
        "active": 0,
        "waiting": 0,
        "delayed": 0,
        "failed": 0,
    }


async def test_either_side_pauses_and_resumes_both(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    queue = JobQueue(redis, queue_name)
    await node.listen()
    await node.queue("pause")
    assert (await queue.counts()).paused
    await node.hears("paused")
    await node.work()
    async with our_worker(redis, redis_url, queue_name, replace(LIKE_NODE, concurrency=3)) as ours:
        await queue.add_bulk([NewJob("complete", {}) for _ in range(5)])
        # A marker makes every worker look; nobody may find anything.
        await ours.consumer.engine.scripts.wake_somebody()
        assert (await queue.counts()).waiting == 5
        await queue.resume()
        await node.hears("resumed")
        await node.hears_many(5, "completed")

        await queue.pause()
        assert await node.queue("isPaused")
        await node.queue("addBulk", [{"name": "complete", "data": {}} for _ in range(5)])
        await node.hears_many(10, "waiting")
        counts = await node.queue("getJobCounts", "waiting", "active", "completed")
        assert (counts["waiting"], counts["active"], counts["completed"]) == (5, 0, 5)
        await node.queue("resume")
        await node.hears_many(10, "completed")


async def test_the_limiter_counts_both_sides_together(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    most, window_ms, jobs = 6, 400, 30
    await node.queue("addBulk", [{"name": "complete", "data": {}} for _ in range(jobs)])
    await node.listen()
    await node.work(concurrency=2, limiter={"max": most, "duration": window_ms})
    ours_options = replace(LIKE_NODE, concurrency=2, limit=Limit(most, window_ms))
    async with our_worker(redis, redis_url, queue_name, ours_options) as ours:
        await node.hears_many(jobs, "completed")
    assert ours.ran
    assert len(ours.ran) < jobs
    starts = await starts_ms(redis, queue_name)
    assert len(starts) == jobs
    # By the server's clock; Redis expires a key up to a millisecond early by it.
    assert max(counts_by_window(starts, window_ms - 2)) == most
    assert starts[-1] - starts[0] < 2 * window_ms * (jobs / most - 1)


async def all_completed(queue: JobQueue, number: int) -> bool:
    return (await queue.counts()).completed == number


async def starts_ms(redis: RedisConnection, queue: QueueName) -> list[int]:
    """When each job became active, by the ids of the event stream."""
    entries = await redis.call("XRANGE", queue.key("events"), "-", "+")
    return [int(entry_id.split(b"-")[0]) for entry_id, fields in entries if fields[:2] == [b"event", b"active"]]


async def test_a_killed_node_worker_s_job_is_ours(
    packages: Path, node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    async with node_peer(packages, redis_url, queue_name) as victim:
        await victim.work(**QUICK_NODE)
        await victim.queue("add", "hang", {"n": 1}, {"jobId": "one"})
        await victim.hears("ran", jobId="one")
        await victim.kill()
    await node.listen()

    async def complete(job: Job[Task]) -> Outcome:
        return Done()

    async with our_worker(redis, redis_url, queue_name, QUICK, complete) as ours:
        await node.hears("stalled", jobId="one")
        await node.hears("completed", jobId="one")
    assert ours.ids == ["one"]
    job = await node.queue("getJob", "one")
    assert (job["attemptsMade"], job["attemptsStarted"], job["stalledCounter"]) == (1, 2, 1)


async def test_our_killed_worker_s_job_is_node_s(node: NodePeer, redis_url: str, queue_name: QueueName) -> None:
    await node.listen()
    await node.queue("add", "hang", {"n": 1}, {"jobId": "one"})
    async with our_process(redis_url, queue_name, **QUICK_OURS) as victim:
        assert victim.stdout is not None
        assert json.loads(await victim.stdout.readline()) == {"ran": "one"}
        victim.kill()
        await victim.wait()
    await node.work(**QUICK_NODE)
    await node.hears("stalled", jobId="one")
    await node.hears("completed", jobId="one")
    job = await node.queue("getJob", "one")
    assert (job["attemptsMade"], job["attemptsStarted"], job["stalledCounter"]) == (1, 2, 1)


async def test_neither_takes_a_job_whose_worker_lives(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    """Jobs longer than the locks, while the other side looks for stalled ones all the time."""
    release = asyncio.Event()

    async def hold(job: Job[Task]) -> Outcome:
        await release.wait()
        return Done()

    await node.listen()
    await node.work(**QUICK_NODE)
    await node.queue("add", "hang", {}, {"jobId": "theirs"})
    await node.hears("ran", jobId="theirs")
    async with our_worker(redis, redis_url, queue_name, QUICK, hold) as ours:
        await node.queue("add", "complete", {}, {"jobId": "ours"})
        await node.hears_many(2, "active")
        # By then each lock would have run out, were it not renewed.
        late = now_ms() + 2 * QUICK.lock_ms
        await until(lambda: looked_for_stalled(redis, queue_name, late))
        release.set()
        await node.hears("completed", jobId="ours")
    assert ours.ids == ["ours"]
    assert not [item for item in node.news if item["news"] in {"stalled", "error"}]
    labels = {"worker": "interop", "queue": queue_name.label}
    assert ours.metrics.registry.get_sample_value("intelliflow_worker_leases_lost_total", labels) == 0


async def looked_for_stalled(redis: RedisConnection, queue: QueueName, since_ms: int) -> bool:
    """Whether both sides have by now; each leaves the moment behind until its next pass is due."""
    passes = await redis.call("MGET", queue.key("stalled-check"), queue.key("stalled-check-py"))
    return all(moment is not None and int(moment) >= since_ms for moment in passes)


async def test_a_hold_is_this_process_s_own(
    node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    async def not_for_a_minute(job: Job[Task]) -> Outcome:
        return Hold("OUT", "the only provider is out", 60)

    await node.listen()
    async with our_worker(redis, redis_url, queue_name, handle=not_for_a_minute) as ours:
        await node.queue("add", "complete", {"n": 1}, {"jobId": "one"})
        await node.hears_many(2, "waiting", jobId="one")
        await node.work()
        await node.hears("completed", jobId="one")
        await node.stop_working()
    assert ours.ids == ["one"]
