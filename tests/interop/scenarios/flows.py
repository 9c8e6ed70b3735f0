"""Parents and children: whoever works them, the family goes the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interop.scenarios.jobs import LATER, MUCH_LATER, a_flow, a_job, failing, grow
from interop.stage import Scenario

if TYPE_CHECKING:
    from interop.stage import Stage

PARENT = a_job("parent", "children")
# For Node a failed child's parent fails with an error, and so with a stack; here it is a verdict.
FAILED_PARENT = {"parent.stacktrace": ("1", "0")}
PENDING = "Job parent has pending dependencies. moveToFinished"
UNFINISHED = "a child of this job is unfinished or has failed"


async def a_failed_child_retried(stage: Stage) -> None:
    await stage.node.flow("add", a_flow(PARENT, failing("child")))
    await stage.open()
    await stage.reaches("child", "failed")
    await stage.node.job("child", "retry", "failed")
    await stage.quiet()


async def a_child_let_go(stage: Stage) -> None:
    await stage.node.flow("add", a_flow(PARENT, a_job("child", "hold"), a_job("other")))
    await stage.open()
    await stage.has_begun("child")
    await stage.node.job("child", "removeChildDependency")
    await stage.let_end("child")
    await stage.quiet()


async def unprocessed_children_removed(stage: Stage) -> None:
    await stage.node.flow("add", a_flow(PARENT, a_job("child", "hold"), a_job("other", priority=9)))
    await stage.open()
    await stage.has_begun("child")
    await stage.node.job("parent", "removeUnprocessedChildren")
    await stage.let_end("child")
    await stage.quiet()


async def a_waiting_parent_removed(stage: Stage) -> None:
    await stage.node.flow("add", a_flow(PARENT, a_job("child", "hold")))
    await stage.open()
    await stage.has_begun("child")
    await stage.node.queue("remove", "parent", {"removeChildren": False})
    await stage.let_end("child")
    await stage.quiet()


async def a_parent_elsewhere(stage: Stage) -> None:
    """Nobody works the parent's queue: what counts is where the children put it."""
    await stage.node.flow("add", a_flow(PARENT, a_job("one"), failing("two", 1, attempts=2), queue="digest"))
    await stage.open()
    await stage.quiet()
    stage.compares_too("digest")


async def a_failed_parent_elsewhere(stage: Stage) -> None:
    await stage.node.flow("add", a_flow(PARENT, failing("child", failParentOnFailure=True), queue="digest"))
    await stage.open()
    await stage.quiet()
    stage.compares_too("digest")


async def children_added_under_a_parent(stage: Stage) -> None:
    await stage.node.flow("add", a_flow(PARENT, a_job("child", "hold")))
    await stage.open()
    await stage.has_begun("child")
    parent = {"id": "parent", "queue": stage.queue.label}
    await stage.node.queue("add", "complete", {"n": 2}, {"jobId": "late", "parent": parent})
    await stage.let_end("child")
    await stage.quiet()


FLOWS = [
    Scenario("family", grow(a_flow(PARENT, a_job("one", data={"n": 1}), a_job("two", data={"n": [2]})))),
    Scenario(
        "three generations",
        grow(
            a_flow(
                a_job("top", "children"),
                a_flow(a_job("left", "children"), a_job("l1"), a_job("l2", priority=2)),
                a_flow(a_job("right", "children"), a_job("r1", delay=LATER)),
            )
        ),
    ),
    Scenario("a child retried", grow(a_flow(PARENT, failing("one", 1, attempts=2), a_job("two")))),
    Scenario("a late parent", grow(a_flow(a_job("parent", "children", delay=LATER), a_job("one")))),
    Scenario("an urgent parent", grow(a_flow(a_job("parent", "children", priority=3), a_job("one")))),
    Scenario("a parent retried", grow(a_flow(failing("parent", 1, attempts=2), a_job("one")))),
    Scenario("a child that removes itself", grow(a_flow(PARENT, a_job("one", data={"n": 1}, removeOnComplete=True)))),
    Scenario("a failed child, ignored", grow(a_flow(PARENT, failing("c", 1, ignoreDependencyOnFailure=True)))),
    Scenario(
        "a failed child, ignored, beside another",
        grow(a_flow(PARENT, failing("c", 1, ignoreDependencyOnFailure=True), a_job("d", data={"n": 1}))),
    ),
    Scenario("a failed child, removed", grow(a_flow(PARENT, failing("c", 1, removeDependencyOnFailure=True)))),
    Scenario(
        "a failed child fails the parent",
        grow(a_flow(PARENT, failing("c", 1, failParentOnFailure=True))),
        differences=FAILED_PARENT,
    ),
    Scenario(
        "a failed child fails the parent, which had more",
        grow(a_flow(PARENT, failing("c", 1, failParentOnFailure=True), a_job("d"))),
        differences=FAILED_PARENT,
    ),
    Scenario(
        "a failed grandchild fails all",
        grow(a_flow(PARENT, a_flow(a_job("mid", failParentOnFailure=True), failing("c", 1, failParentOnFailure=True)))),
        differences=FAILED_PARENT | {"mid.stacktrace": ("1", "0")},
    ),
    Scenario("a failed child wakes the parent", grow(a_flow(PARENT, failing("c", 1, continueParentOnFailure=True)))),
    Scenario(
        "a failed child wakes the parent before another",
        grow(a_flow(PARENT, failing("c", 1, continueParentOnFailure=True), a_job("d", delay=LATER))),
        differences={
            **FAILED_PARENT,
            "parent.failedReason": (PENDING, UNFINISHED),
            "failed parent: failedReason": ([PENDING], [UNFINISHED]),
        },
    ),
    Scenario(
        "a failed child wakes a parent that may try again",
        grow(
            a_flow(
                a_job("parent", "children", attempts=2, backoff=MUCH_LATER),
                failing("c", 1, continueParentOnFailure=True),
                a_job("d", data={"n": 4}, delay=LATER),
            )
        ),
        differences={"parent.failedReason": (PENDING, UNFINISHED), "parent.stacktrace": ("1", None)},
    ),
    Scenario("a failed child retried by Node", a_failed_child_retried),
    Scenario("a child let go", a_child_let_go),
    Scenario("unprocessed children removed", unprocessed_children_removed),
    Scenario("a waiting parent removed", a_waiting_parent_removed),
    Scenario("a child added while another runs", children_added_under_a_parent),
    Scenario("a parent elsewhere", a_parent_elsewhere),
    Scenario("a failed parent elsewhere", a_failed_parent_elsewhere),
]
