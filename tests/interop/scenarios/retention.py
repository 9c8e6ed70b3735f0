"""What is kept of finished jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from interop.our_worker import LIKE_NODE
from interop.scenarios.jobs import a_job, failing, run
from interop.stage import Scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from interop.stage import Added, Stage


def an_hour_later(new: Added, *old: Added) -> Callable[[Stage], Awaitable[None]]:
    """Let an hour pass between old jobs and a new one: as Redis remembers it, for nobody wants to wait."""

    async def play(stage: Stage) -> None:
        await stage.add(*old)
        await stage.open()
        await stage.quiet()
        for state in ("completed", "failed"):
            for job in old:
                await stage.redis.call("ZADD", stage.queue.key(state), "XX", "INCR", -AN_HOUR_MS, job["opts"]["jobId"])
        await stage.add(new)
        await stage.quiet()

    return play


AN_HOUR_MS = 3_600_000
MANY = [a_job(f"j{n}") for n in range(4)]
MANY_FAILING = [failing(f"j{n}") for n in range(4)]

RETENTION = [
    Scenario("none", run(a_job("a", removeOnComplete=True), failing("b", 1, removeOnFail=True))),
    Scenario("by count", run(*(a_job(f"j{n}", removeOnComplete=2) for n in range(4)))),
    Scenario("failed by count", run(*(failing(f"j{n}", 1, removeOnFail={"count": 1}) for n in range(3)))),
    Scenario("all", run(a_job("a", removeOnComplete=False), failing("b", 1, removeOnFail=False))),
    Scenario("by age", an_hour_later(a_job("new", removeOnComplete={"age": 60}), a_job("old"))),
    Scenario("failed by age", an_hour_later(failing("new", 1, removeOnFail={"age": 60}), failing("old"))),
    Scenario(
        "by age, a few at a time",
        an_hour_later(a_job("new", removeOnComplete={"age": 60, "limit": 2}), *MANY),
    ),
    Scenario(
        "the queue's, by count",
        run(*MANY, failing("f"), failing("g")),
        theirs={"removeOnComplete": {"count": 2}, "removeOnFail": {"count": 1}},
        ours=replace(LIKE_NODE, keep_completed={"count": 2}, keep_failed={"count": 1}),
    ),
    Scenario(
        "the queue's, by age",
        an_hour_later(a_job("new"), *MANY),
        theirs={"removeOnComplete": {"age": 60}},
        ours=replace(LIKE_NODE, keep_completed={"age": 60}),
    ),
    Scenario(
        "the queue's, overruled by a job",
        run(a_job("a", removeOnComplete=False), a_job("b"), a_job("c", removeOnComplete=1)),
        theirs={"removeOnComplete": {"count": 0}},
        ours=replace(LIKE_NODE, keep_completed={"count": 0}),
    ),
    Scenario(
        "a job that goes takes its log and its children's results along",
        run(a_job("a", "log", {"steps": ["one"]}, removeOnComplete=True)),
    ),
    Scenario(
        "nothing said",
        run(a_job("a"), failing("b")),
        ours=replace(LIKE_NODE, keep_completed={"age": 86_400, "count": 1}, keep_failed={"age": 86_400}),
    ),
]
