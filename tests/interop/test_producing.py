"""What our JobQueue writes is what Node's Queue writes, and Node's worker runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from interop.aftermath import aftermath
from interop.node_peer import NodePeer, NodeRefusedError
from worker_runtime.bullmq.producer import JobQueue, NewJob

if TYPE_CHECKING:
    from worker_runtime.bullmq.names import QueueName
    from worker_runtime.redis.connection import RedisConnection

pytestmark = pytest.mark.needs("node", "npm")

# Our job, and the options with which Node adds the same.
SAME = {
    "plain": (NewJob("complete", {"n": 1}), {}),
    "text": (NewJob("complete", {"n": "é\U0001f600\u2028\\\"'\n\x00"}), {}),
    "ready-made JSON": (NewJob("complete", b'{"n":[1.0,null]}'), {}),
    "id": (NewJob("complete", {}, job_id="welcome-1"), {"jobId": "welcome-1"}),
    "uuid": (NewJob("complete", {}, job_id="0193a3c8-7d34-7000"), {"jobId": "0193a3c8-7d34-7000"}),
    "delayed": (NewJob("complete", {}, delay_ms=60_000), {"delay": 60_000}),
    "prioritised": (NewJob("complete", {}, priority=7), {"priority": 7}),
    "lowest": (NewJob("complete", {}, priority=2_097_151), {"priority": 2_097_151}),
    "delayed and prioritised": (NewJob("complete", {}, delay_ms=60_000, priority=7), {"delay": 60_000, "priority": 7}),
    "lifo": (NewJob("complete", {}, lifo=True), {"lifo": True}),
    "retries": (NewJob("complete", {}, options={"attempts": 5}), {"attempts": 5}),
    "back-off": (
        NewJob("complete", {}, options={"backoff": {"type": "exponential", "delay": 1000, "jitter": 0.5}}),
        {"backoff": {"type": "exponential", "delay": 1000, "jitter": 0.5}},
    ),
    "retention": (
        NewJob("complete", {}, options={"removeOnComplete": True, "removeOnFail": {"age": 60, "count": 7}}),
        {"removeOnComplete": True, "removeOnFail": {"age": 60, "count": 7}},
    ),
    "deduplicated": (
        NewJob("complete", {}, options={"deduplication": {"id": "x", "ttl": 60_000}}),
        {"deduplication": {"id": "x", "ttl": 60_000}},
    ),
    "back-off, as a number": (NewJob("complete", {}, options={"backoff": 1000}), {"backoff": 1000}),
    "within its size": (NewJob("complete", {"n": "é"}, options={"sizeLimit": 10}), {"sizeLimit": 10}),
    "kept logs": (NewJob("complete", {}, options={"keepLogs": 3}), {"keepLogs": 3}),
    "traced": (
        NewJob("complete", {}, options={"tm": '{"traceparent":"00-1-2-01"}'}),
        {"telemetry": {"metadata": '{"traceparent":"00-1-2-01"}'}},
    ),
    "traced, in Node's words": (
        NewJob("complete", {}, options={"telemetry": {"metadata": "{}", "omitContext": True}}),
        {"telemetry": {"metadata": "{}", "omitContext": True}},
    ),
}


async def test_both_add_a_job_alike(node: NodePeer, redis: RedisConnection, queue_name: QueueName) -> None:
    theirs, ours = {}, {}
    for case, (job, options) in SAME.items():
        data = json.loads(job.data) if isinstance(job.data, bytes) else job.data
        added = await node.queue("add", job.name, data, options)
        theirs[case] = added["id"], await aftermath(redis, queue_name)
        await redis.call("FLUSHDB")
        ours[case] = await JobQueue(redis, queue_name).add(job), await aftermath(redis, queue_name)
        await redis.call("FLUSHDB")
    assert ours == theirs


async def test_a_node_worker_runs_what_we_add_in_bulk(
    node: NodePeer, redis: RedisConnection, queue_name: QueueName
) -> None:
    jobs = [NewJob("complete", {"n": n}, job_id=f"job-{n}") for n in range(1_200)]
    queue = JobQueue(redis, queue_name)
    assert await queue.add_bulk(jobs) == [f"job-{n}" for n in range(1_200)]
    assert await queue.add_bulk(jobs) == [f"job-{n}" for n in range(1_200)]
    await node.work()
    assert [ran["jobId"] for ran in await node.hears_many(1_200, "ran")] == [f"job-{n}" for n in range(1_200)]
    await node.stop_working()
    assert (await node.queue("getJob", "job-77"))["returnvalue"] == {"echoed": 77}
    assert (await queue.counts()).completed == 1_200


async def test_a_node_worker_keeps_our_order_and_our_delays(
    node: NodePeer, redis: RedisConnection, queue_name: QueueName
) -> None:
    queue = JobQueue(redis, queue_name)
    for job in (
        NewJob("complete", {}, job_id="late", delay_ms=400, priority=200),
        NewJob("complete", {}, job_id="low", priority=100),
        NewJob("complete", {}, job_id="high", priority=1),
        NewJob("complete", {}, job_id="plain"),
        NewJob("complete", {}, job_id="urgent", lifo=True),
    ):
        await queue.add(job)
    await node.work()
    assert [ran["jobId"] for ran in await node.hears_many(5, "ran")] == ["urgent", "plain", "high", "low", "late"]


async def test_listeners_hear_of_doubles_we_add(node: NodePeer, redis: RedisConnection, queue_name: QueueName) -> None:
    queue = JobQueue(redis, queue_name)
    await node.listen()
    await queue.add(NewJob("complete", {}, job_id="one"))
    await queue.add(NewJob("complete", {}, job_id="one"))
    await node.hears("duplicated", jobId="one")
    for job_id in ("two", "three"):
        options = {"deduplication": {"id": "x"}}
        assert await queue.add(NewJob("complete", {}, job_id=job_id, options=options)) == "two"
    await node.hears("deduplicated", jobId="two", deduplicationId="x", deduplicatedJobId="three")


REFUSED = ["0", "7", "-3", "42", "a:b", "a:b:c:d", ":", "repeat:x", "intelliflow:email:lead:welcome"]
TAKEN = ["a", "1a", "0x1f", "1e3", "1.5", "é", "a b", "550e8400-e29b-41d4-a716-446655440000", "repeat:x:1700000000000"]


async def test_ids_that_node_refuses_are_refused_here_and_no_others(
    node: NodePeer, redis: RedisConnection, queue_name: QueueName
) -> None:
    queue = JobQueue(redis, queue_name)
    for job_id in TAKEN:
        assert await queue.add(NewJob("complete", {}, job_id=job_id)) == job_id
        assert (await node.queue("add", "complete", {}, {"jobId": job_id}))["id"] == job_id
    for job_id in REFUSED:
        with pytest.raises(NodeRefusedError, match=r"Custom Id|JobId"):
            await node.queue("add", "complete", {}, {"jobId": job_id})
        with pytest.raises(ValueError, match="job id"):
            await queue.add(NewJob("complete", {}, job_id=job_id))
    assert (await queue.counts()).waiting == len(TAKEN)


async def test_a_priority_that_node_refuses_is_refused_here(
    node: NodePeer, redis: RedisConnection, queue_name: QueueName
) -> None:
    with pytest.raises(NodeRefusedError, match="between 0 and 2097151"):
        await node.queue("add", "complete", {}, {"priority": 2_097_152})
    with pytest.raises(ValueError, match="between 0 and 2097151"):
        await JobQueue(redis, queue_name).add(NewJob("complete", {}, priority=2_097_152))


REFUSED_OPTIONS = {
    "two ways to fail": {"failParentOnFailure": True, "removeDependencyOnFailure": True},
    "debounce": {"debounce": {"id": "x"}},
    "deduplication without an id": {"deduplication": {"ttl": 5}},
    "jitter": {"backoff": {"type": "fixed", "delay": 5, "jitter": 1.5}},
    "size": {"sizeLimit": 9},
}


@pytest.mark.parametrize("options", REFUSED_OPTIONS.values(), ids=REFUSED_OPTIONS)
async def test_options_that_node_refuses_are_refused_here(
    options: dict[str, Any], node: NodePeer, redis: RedisConnection, queue_name: QueueName
) -> None:
    with pytest.raises(NodeRefusedError):
        await node.queue("add", "complete", {"n": "é"}, options)
    with pytest.raises(ValueError, match=r"options|bytes"):
        await JobQueue(redis, queue_name).add(NewJob("complete", {"n": "é"}, options=options))
    assert (await JobQueue(redis, queue_name).counts()).waiting == 0
