"""The same jobs for Node's worker and for ours: what they leave in Redis, and what they tell listeners, is the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from interop.aftermath import Aftermath, aftermath, until
from interop.our_worker import our_worker

if TYPE_CHECKING:
    from interop.node_peer import NodePeer
    from worker_runtime.bullmq.connection import RedisConnection
    from worker_runtime.bullmq.names import QueueName

pytestmark = pytest.mark.needs("node", "npm")

Added = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """Jobs that Node adds, in one call of `addBulk` or as flows.

    `verdict`: a job is a dead letter by a verdict, which for Node is an error too and has a stack.
    """

    name: str
    jobs: tuple[Added, ...] = ()
    flows: tuple[Added, ...] = ()
    verdict: bool = False

    async def add(self, node: NodePeer) -> None:
        await node.queue("addBulk", self.jobs)
        for flow in self.flows:
            await node.flow("add", flow)


def a_job(job_id: str, name: str = "complete", data: dict[str, Any] | None = None, **opts: Any) -> Added:
    return {"name": name, "data": data or {}, "opts": {"jobId": job_id, **opts}}


def failing(job_id: str, times: int, **opts: Any) -> Added:
    return a_job(job_id, "fail", {"times": times, "says": "no"}, **opts)


def a_flow(parent: Added, *children: Added) -> Added:
    return {**parent, "queueName": "email", "children": [{**child, "queueName": "email"} for child in children]}


ENDS = [
    Scenario("completed", (a_job("a", data={"n": "é\U0001f600"}), a_job("b", data={"n": 1.5}), a_job("c"))),
    Scenario("failed without a second attempt", (failing("a", 1),)),
    Scenario("failed for good", (a_job("a", "refuse", {"says": "never"}, attempts=5, backoff=10),), verdict=True),
    Scenario("progress", (a_job("a", "progress", {"steps": {"percent": 50}}), a_job("b", "progress", {"steps": 7}))),
    Scenario("without an id", ({"name": "complete", "data": {}}, {"name": "complete", "data": {}})),
]

RETRIES = [
    Scenario("retried at once, behind the others", (failing("a", 2, attempts=3), a_job("b"))),
    Scenario("retried at once, lifo: before the others", (failing("a", 2, attempts=3, lifo=True), a_job("b"))),
    Scenario("exhausted", (failing("a", 9, attempts=3),)),
    Scenario("fixed, as a number", (failing("a", 1, attempts=2, backoff=30),)),
    Scenario("fixed", (failing("a", 2, attempts=3, backoff={"type": "fixed", "delay": 20}),)),
    Scenario("exponential", (failing("a", 3, attempts=4, backoff={"type": "exponential", "delay": 10}),)),
    Scenario("jitter", (failing("a", 1, attempts=2, backoff={"type": "fixed", "delay": 20, "jitter": 0.5}),)),
    Scenario("last stacks only", (failing("a", 9, attempts=3, stackTraceLimit=2),)),
    Scenario("no stacks", (failing("a", 9, attempts=3, stackTraceLimit=0),)),
]

ORDERS = [
    Scenario(
        "priorities", (a_job("low", priority=10), a_job("high", priority=1), a_job("none"), a_job("top", lifo=True))
    ),
    Scenario("a priority kept at once", (failing("a", 1, priority=1, attempts=2), a_job("b", priority=2))),
    Scenario("a priority kept late", (failing("a", 1, priority=5, attempts=2, backoff=200), a_job("b", priority=6))),
    Scenario("delayed", (a_job("a", delay=200), a_job("b"))),
    Scenario("delayed with a priority", (a_job("a", delay=200, priority=3), a_job("b", priority=4))),
]

DOUBLES = [
    Scenario("the same id", (a_job("a", data={"n": 1}), a_job("a", data={"n": 2}))),
    Scenario(
        "deduplicated until it ends", (a_job("a", deduplication={"id": "x"}), a_job("b", deduplication={"id": "x"}))
    ),
    Scenario("deduplicated for a time", (a_job("a", deduplication={"id": "x", "ttl": 60_000}),)),
    Scenario(
        "the last one while it runs is kept",
        (a_job("a", deduplication={"id": "x", "keepLastIfActive": True}),),
    ),
]

RETENTION = [
    Scenario("none", (a_job("a", removeOnComplete=True), failing("b", 1, removeOnFail=True))),
    Scenario("by count", tuple(a_job(f"j{n}", removeOnComplete=2) for n in range(4))),
    Scenario("failed by count", tuple(failing(f"j{n}", 1, removeOnFail={"count": 1}) for n in range(3))),
    Scenario("all", (a_job("a", removeOnComplete=False), failing("b", 1, removeOnFail=False))),
    Scenario("by age", (a_job("old"), a_job("new", delay=1_200, removeOnComplete={"age": 1}))),
]

FLOWS = [
    Scenario("family", flows=(a_flow(a_job("parent"), a_job("one", data={"n": 1}), a_job("two", data={"n": 2})),)),
    Scenario("a child retried", flows=(a_flow(a_job("parent"), failing("one", 1, attempts=2), a_job("two")),)),
    Scenario("a failed child, ignored", flows=(a_flow(a_job("p"), failing("c", 1, ignoreDependencyOnFailure=True)),)),
    Scenario("a failed child, removed", flows=(a_flow(a_job("p"), failing("c", 1, removeDependencyOnFailure=True)),)),
    Scenario(
        "a failed child fails the parent",
        flows=(a_flow(a_job("p"), failing("c", 1, failParentOnFailure=True)),),
        verdict=True,
    ),
    Scenario(
        "a failed child wakes the parent", flows=(a_flow(a_job("p"), failing("c", 1, continueParentOnFailure=True)),)
    ),
]

SCENARIOS = {
    f"{group}: {scenario.name}": scenario
    for group, scenarios in {
        "ends": ENDS,
        "retries": RETRIES,
        "orders": ORDERS,
        "doubles": DOUBLES,
        "retention": RETENTION,
        "flows": FLOWS,
    }.items()
    for scenario in scenarios
}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
async def test_both_workers_leave_the_same_behind(
    scenario: Scenario, node: NodePeer, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    await node.queue("pause")
    await node.work(name="w")
    await run(scenario, node)
    await node.stop_working()
    theirs = await aftermath(redis, queue_name)

    await redis.call("FLUSHDB")
    await node.queue("pause")
    async with our_worker(redis, redis_url, queue_name):
        await run(scenario, node)
    ours = await aftermath(redis, queue_name)
    assert ours.states == theirs.states
    assert comparable(ours, scenario) == comparable(theirs, scenario)
    assert ours.events == theirs.events
    assert ours.other_keys == theirs.other_keys


async def run(scenario: Scenario, node: NodePeer) -> None:
    """Let the worker at all jobs at once, so that its own start decides nothing, and wait until all have ended."""

    async def quiet() -> bool:
        counts = await node.queue("getJobCounts")
        return bool(sum(counts.values()) == counts["completed"] + counts["failed"])

    await scenario.add(node)
    await node.queue("resume")
    await until(quiet)


def comparable(left: Aftermath, scenario: Scenario) -> dict[str, Added]:
    without = {"stacktrace"} if scenario.verdict else set()
    return {job_id: {key: job[key] for key in job.keys() - without} for job_id, job in left.jobs.items()}
