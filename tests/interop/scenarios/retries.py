"""Failed attempts, and when the next one comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interop.scenarios.jobs import LATER, a_job, failing, run
from interop.stage import Scenario
from worker_runtime.retry import JobOptionsRetry

if TYPE_CHECKING:
    from interop.stage import Stage

STEPS = JobOptionsRetry({"steps": lambda made, _: 20.0 * made, "never": lambda _made, _: None})
MINUS_ONE = JobOptionsRetry({"never": lambda _made, _: -1})


async def retried_by_node(stage: Stage) -> None:
    await stage.add(failing("a", 2), failing("b", 1), a_job("c"))
    await stage.open()
    await stage.quiet()
    await stage.node.job("b", "retry", "failed")
    await stage.quiet()
    await stage.node.queue("retryJobs", {"state": "failed"})
    await stage.quiet()


async def with_attempts_anew(stage: Stage) -> None:
    await stage.add(failing("a", 9, attempts=2))
    await stage.open()
    await stage.quiet()
    await stage.node.job("a", "retry", "failed", {"resetAttemptsMade": True, "resetAttemptsStarted": True})
    await stage.quiet()


async def completed_again(stage: Stage) -> None:
    await stage.add(a_job("a"))
    await stage.open()
    await stage.quiet()
    await stage.node.job("a", "retry", "completed")
    await stage.quiet()


RETRIES = [
    Scenario("retried at once, behind the others", run(failing("a", 2, attempts=3), a_job("b"))),
    Scenario("retried at once, lifo: before the others", run(failing("a", 2, attempts=3, lifo=True), a_job("b"))),
    Scenario("exhausted", run(failing("a", 9, attempts=3))),
    Scenario("fixed, as a number", run(failing("a", 1, attempts=2, backoff=30))),
    Scenario("fixed", run(failing("a", 2, attempts=3, backoff={"type": "fixed", "delay": 20}))),
    Scenario("exponential", run(failing("a", 3, attempts=4, backoff={"type": "exponential", "delay": 10}))),
    Scenario("jitter", run(failing("a", 1, attempts=2, backoff={"type": "fixed", "delay": 20, "jitter": 0.5}))),
    Scenario(
        "exponential with jitter",
        run(failing("a", 2, attempts=3, backoff={"type": "exponential", "delay": 10, "jitter": 0.5})),
    ),
    Scenario(
        "a strategy of one's own",
        run(failing("a", 2, attempts=3, backoff={"type": "steps"})),
        theirs={"custom": True},
        retry=STEPS,
    ),
    Scenario(
        "a strategy that gives up",
        run(failing("a", 9, attempts=3, backoff={"type": "never"})),
        theirs={"custom": True},
        retry=STEPS,
    ),
    Scenario(
        "a strategy that gives up in Node's words",
        run(failing("a", 9, attempts=3, backoff={"type": "never"})),
        theirs={"custom": True},
        retry=MINUS_ONE,
    ),
    Scenario("last stacks only", run(failing("a", 9, attempts=3, stackTraceLimit=2))),
    Scenario("no stacks", run(failing("a", 9, attempts=3, stackTraceLimit=0))),
    Scenario("many stacks", run(failing("a", 99, attempts=12)), differences={"a.stacktrace": ("12", "10")}),
    Scenario("retried by Node, one and all", retried_by_node),
    Scenario("retried by Node with all attempts anew", with_attempts_anew),
    Scenario("completed, and run again by Node", completed_again),
    Scenario(
        "put off by its handler",
        run(a_job("a", "defer", {"n": LATER}, attempts=1), a_job("b")),
        differences={"a.deferredBecause": (None, "not now"), "a.deferredSince": (None, "a moment")},
    ),
]
