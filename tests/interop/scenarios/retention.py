"""What is kept of finished jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from interop.our_worker import LIKE_NODE
from interop.scenarios.jobs import a_job, failing, run
from interop.stage import Scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from interop.stage import Stage


def aged(first: Any, then: Any) -> Callable[[Stage], Awaitable[None]]:
    """A job, and one that comes when the first is over a second old."""
    return run(first, then)


MANY = [a_job(f"j{n}") for n in range(4)]
MANY_FAILING = [failing(f"j{n}") for n in range(4)]

RETENTION = [
    Scenario("none", run(a_job("a", removeOnComplete=True), failing("b", 1, removeOnFail=True))),
    Scenario("by count", run(*(a_job(f"j{n}", removeOnComplete=2) for n in range(4)))),
    Scenario("failed by count", run(*(failing(f"j{n}", 1, removeOnFail={"count": 1}) for n in range(3)))),
    Scenario("all", run(a_job("a", removeOnComplete=False), failing("b", 1, removeOnFail=False))),
    Scenario("by age", aged(a_job("old"), a_job("new", delay=1_200, removeOnComplete={"age": 1}))),
    Scenario("failed by age", aged(failing("old"), failing("new", 1, delay=1_200, removeOnFail={"age": 1}))),
    Scenario(
        "by age, a few at a time",
        run(*MANY, a_job("new", delay=1_200, removeOnComplete={"age": 1, "limit": 2})),
    ),
    Scenario(
        "the queue's, by count",
        run(*MANY, failing("f"), failing("g")),
        theirs={"removeOnComplete": {"count": 2}, "removeOnFail": {"count": 1}},
        ours=replace(LIKE_NODE, keep_completed={"count": 2}, keep_failed={"count": 1}),
    ),
    Scenario(
        "the queue's, by age",
        run(*MANY, a_job("new", delay=1_200)),
        theirs={"removeOnComplete": {"age": 1}},
        ours=replace(LIKE_NODE, keep_completed={"age": 1}),
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
