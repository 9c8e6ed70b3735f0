"""A queue with Node at the controls and one kind of worker, Node's or ours, at work: where a scenario is played."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from interop.aftermath import until
from interop.behaviours import Actor
from interop.node_peer import node_peer
from interop.our_worker import LIKE_NODE, OWN_OPTIONS, our_worker
from worker_runtime.bullmq.names import QueueName
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from interop.node_peer import NodePeer
    from worker_runtime.bullmq.engine_options import EngineOptions
    from worker_runtime.retry import RetryPolicy

Added = dict[str, Any]
ENDED = {"completed", "failed"}
THEIR_QUEUE, OUR_QUEUE = QueueName("node:notifications", "email"), QueueName("ours:notifications", "email")


class Cast(Protocol):
    """The worker of one performance."""

    async def has_begun(self, job_id: str, times: int) -> None:
        """Wait until a handler has been called for that job so often."""
        ...

    async def release(self, job_id: str) -> None:
        """Let a job end whose behaviour is `hold`."""
        ...


@dataclass
class Stage:
    """What a scenario's script may do. The queue is paused until it says `open`: no worker's start decides anything."""

    node: NodePeer
    redis: RedisConnection
    queue: QueueName
    worker: Cast
    # Further queues whose aftermath counts, under the same prefix.
    beside: list[QueueName] = field(default_factory=list)

    async def add(self, *jobs: Added) -> None:
        await self.node.queue("addBulk", jobs)

    async def open(self) -> None:
        await self.node.queue("resume")

    async def has_begun(self, job_id: str, times: int = 1) -> None:
        await self.worker.has_begun(job_id, times)

    async def let_end(self, job_id: str) -> None:
        await self.worker.release(job_id)

    def compares_too(self, name: str) -> None:
        self.beside.append(QueueName(self.queue.prefix, name))

    async def waits_for(self, condition: Callable[[], Awaitable[bool]]) -> None:
        await until(condition)

    async def has_completed(self, jobs: int) -> None:
        async def enough() -> bool:
            return bool((await self.node.queue("getJobCounts", "completed"))["completed"] >= jobs)

        await until(enough)

    async def scheduled_one_begins(self) -> str:
        """Wait until a schedule's job runs and return its id, which nobody knows beforehand."""
        found: list[str] = []

        async def active() -> bool:
            found[:] = [job["id"] for job in await self.node.queue("getActive")]
            return bool(found)

        await until(active)
        await self.has_begun(found[0])
        return found[0]

    async def reaches(self, job_id: str, state: str) -> None:
        async def reached() -> bool:
            return bool(await self.node.job(job_id, "getState") == state)

        await until(reached)

    async def quiet(self, *, but_for: str = "") -> None:
        """Wait until every job has ended, but for those in one state."""

        async def ended() -> bool:
            counts = await self.node.queue("getJobCounts")
            return all(state in {*ENDED, but_for} or not count for state, count in counts.items())

        await until(ended)


@dataclass(frozen=True)
class Scenario:
    """What is played to both kinds of worker. `play` leaves the queue as it is to be compared.

    `before` is done before there is any worker, and before the queue is paused.

    `theirs` are options of Node's worker, `ours` and `retry` are ours; they say the same. `differences` are the facts
    left behind that differ, by their path, Node's first: what docs/explanation/compatibility.md tells of.
    """

    name: str
    play: Callable[[Stage], Awaitable[None]]
    theirs: Mapping[str, Any] = field(default_factory=dict)
    ours: EngineOptions = LIKE_NODE
    retry: RetryPolicy = OWN_OPTIONS
    differences: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    before: Callable[[Stage], Awaitable[None]] | None = None

    async def prepare(self, stage: Stage) -> None:
        if self.before:
            await self.before(stage)
        await stage.node.queue("pause")


class Theirs:
    def __init__(self, node: NodePeer) -> None:
        self._node = node

    async def has_begun(self, job_id: str, times: int) -> None:
        await self._node.hears_many(times, "ran", jobId=job_id)

    async def release(self, job_id: str) -> None:
        await self._node.release(job_id)


class Ours:
    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    async def has_begun(self, job_id: str, times: int) -> None:
        async def begun() -> bool:
            return self._actor.begun[job_id] >= times

        await until(begun)

    async def release(self, job_id: str) -> None:
        self._actor.release(job_id)


@dataclass(frozen=True)
class Theatre:
    """A stage of its own for each kind of worker: queues of one name under two prefixes of one Redis."""

    redis: RedisConnection
    url: str
    for_theirs: NodePeer
    for_ours: NodePeer

    async def perform(self, scenario: Scenario) -> tuple[Stage, Stage]:
        """Play a scenario to both at once; what they leave behind is still there."""
        await self.redis.call("FLUSHDB")
        for peer in (self.for_theirs, self.for_ours):
            peer.news.clear()
        async with asyncio.TaskGroup() as both:
            theirs = both.create_task(self._by_node(scenario))
            ours = both.create_task(self._by_us(scenario))
        return theirs.result(), ours.result()

    async def _by_node(self, scenario: Scenario) -> Stage:
        stage = Stage(self.for_theirs, self.redis, THEIR_QUEUE, Theirs(self.for_theirs))
        await scenario.prepare(stage)
        await self.for_theirs.work(**{"name": "w", **scenario.theirs})
        try:
            await scenario.play(stage)
        finally:
            await self.for_theirs.stop_working()
        return stage

    async def _by_us(self, scenario: Scenario) -> Stage:
        actor = Actor()
        stage = Stage(self.for_ours, self.redis, OUR_QUEUE, Ours(actor))
        await scenario.prepare(stage)
        async with our_worker(self.redis, self.url, OUR_QUEUE, scenario.ours, actor, scenario.retry):
            await scenario.play(stage)
        return stage


@contextlib.asynccontextmanager
async def opened(packages: Path, url: str) -> AsyncIterator[Theatre]:
    redis = RedisConnection(url, client_name="interop", timeout_seconds=5)
    await redis.open()
    async with node_peer(packages, url, THEIR_QUEUE) as theirs, node_peer(packages, url, OUR_QUEUE) as ours:
        yield Theatre(redis, url, theirs, ours)
    await redis.close()
