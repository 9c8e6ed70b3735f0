"""How many at once, and how many in a time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from interop.our_worker import LIKE_NODE
from interop.scenarios.jobs import MUCH_LATER, a_job, failing, run
from interop.stage import Scenario
from worker_runtime.bullmq.scripts import Limit

if TYPE_CHECKING:
    from interop.stage import Stage

THREE = [a_job("a"), a_job("b"), a_job("c")]


async def global_limit(stage: Stage) -> None:
    await stage.node.queue("setGlobalRateLimit", 1, 100)
    await stage.add(*THREE)
    await stage.open()
    await stage.quiet()


async def global_limit_removed(stage: Stage) -> None:
    await stage.node.queue("setGlobalRateLimit", 1, 60_000)
    await stage.add(a_job("a", "hold"), a_job("b"), a_job("c"))
    await stage.open()
    await stage.has_begun("a")
    await stage.node.queue("removeGlobalRateLimit")
    await stage.node.queue("removeRateLimitKey")
    await stage.let_end("a")
    await stage.quiet()


async def global_concurrency(stage: Stage) -> None:
    await stage.node.queue("setGlobalConcurrency", 1)
    await stage.add(a_job("a", "hold"), a_job("b"), failing("c", 1, attempts=2), a_job("d", priority=1))
    await stage.open()
    await stage.has_begun("a")
    await stage.let_end("a")
    await stage.quiet()


async def global_concurrency_removed(stage: Stage) -> None:
    await stage.node.queue("setGlobalConcurrency", 1)
    await stage.add(a_job("a", "hold"))
    await stage.open()
    await stage.has_begun("a")
    await stage.node.queue("removeGlobalConcurrency")
    await stage.add(a_job("b"))
    await stage.reaches("b", "completed")
    await stage.let_end("a")
    await stage.quiet()


async def held_up_by_node(stage: Stage) -> None:
    await stage.node.queue("rateLimit", 200)
    await stage.add(*THREE)
    await stage.open()
    await stage.quiet()


LIMITS = [
    Scenario(
        "a limit of the worker's",
        run(*THREE),
        theirs={"limiter": {"max": 1, "duration": 100}},
        ours=replace(LIKE_NODE, limit=Limit(1, 100)),
    ),
    Scenario(
        "a limit met by retries and priorities",
        run(failing("a", 1, attempts=2), failing("b", 1, attempts=2, priority=1), a_job("c", delay=MUCH_LATER)),
        theirs={"limiter": {"max": 1, "duration": 100}},
        ours=replace(LIKE_NODE, limit=Limit(1, 100)),
    ),
    Scenario("a limit for all workers", global_limit),
    Scenario("a limit for all workers, removed", global_limit_removed),
    Scenario(
        "a number at once for all workers",
        global_concurrency,
        theirs={"concurrency": 3},
        ours=replace(LIKE_NODE, concurrency=3),
    ),
    Scenario(
        "a number at once for all workers, removed",
        global_concurrency_removed,
        theirs={"concurrency": 3},
        ours=replace(LIKE_NODE, concurrency=3),
    ),
    Scenario("held up by Node", held_up_by_node),
    Scenario("held up by a handler", run(a_job("a", "limit", {"n": 100}), a_job("b"))),
]
