"""Jobs that are added more than once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interop.scenarios.jobs import MUCH_LATER, a_job, failing, run
from interop.stage import Scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from interop.stage import Added, Stage


def double(job_id: str, n: int = 0, name: str = "complete", **more: Any) -> Added:
    opts: dict[str, Any] = {"deduplication": {"id": "x", **more}}
    if "ttl" in more and more.get("replace"):
        opts["delay"] = more["ttl"]
    return a_job(job_id, name, {"n": n}, **opts)


def while_one_runs(first: Added, *others: Added) -> Callable[[Stage], Awaitable[None]]:
    async def play(stage: Stage) -> None:
        await stage.add(first)
        await stage.open()
        await stage.has_begun("a")
        await stage.add(*others)
        await stage.let_end("a")
        await stage.quiet()

    return play


async def again_afterwards(stage: Stage) -> None:
    await stage.add(double("a"))
    await stage.open()
    await stage.quiet()
    await stage.add(double("b"))
    await stage.quiet()


async def throttled(stage: Stage) -> None:
    await stage.add(double("a", ttl=MUCH_LATER))
    await stage.open()
    await stage.quiet()
    await stage.add(double("b", ttl=MUCH_LATER))
    await stage.quiet()

    async def over() -> bool:
        return bool(await stage.node.queue("getDeduplicationJobId", "x") is None)

    await stage.waits_for(over)
    await stage.add(double("c", ttl=MUCH_LATER))
    await stage.quiet()


async def key_removed(stage: Stage) -> None:
    await stage.add(double("a", name="hold"))
    await stage.open()
    await stage.has_begun("a")
    await stage.node.queue("removeDeduplicationKey", "x")
    await stage.add(double("b"))
    await stage.let_end("a")
    await stage.quiet()


async def key_removed_by_its_job(stage: Stage) -> None:
    await stage.add(double("a", name="hold"))
    await stage.open()
    await stage.has_begun("a")
    await stage.node.job("a", "removeDeduplicationKey")
    await stage.add(double("b"), double("c"))
    await stage.let_end("a")
    await stage.quiet()


async def waiting_one_removed(stage: Stage) -> None:
    await stage.add(double("a"))
    await stage.node.queue("remove", "a")
    await stage.add(double("b"))
    await stage.open()
    await stage.quiet()


LAST: dict[str, Any] = {"keepLastIfActive": True}
DEBOUNCE: dict[str, Any] = {"ttl": 200, "extend": True, "replace": True}

DOUBLES = [
    Scenario("the same id", run(a_job("a", data={"n": 1}), a_job("a", data={"n": 2}))),
    Scenario("deduplicated until it ends", run(double("a"), double("b"))),
    Scenario("no longer once it has ended", again_afterwards),
    Scenario("no longer once it has failed", run(failing("a", 1, deduplication={"id": "x"}), double("b"))),
    Scenario("deduplicated while it runs", while_one_runs(double("a", name="hold"), double("b"))),
    Scenario(
        "deduplicated while it is retried", run(failing("a", 1, attempts=2, deduplication={"id": "x"}), double("b"))
    ),
    Scenario("throttled for a time", throttled),
    Scenario("debounced: the last one, later", run(*(double(name, n, **DEBOUNCE) for n, name in enumerate("abc")))),
    Scenario(
        "debounced without waiting longer",
        run(*(double(name, n, ttl=200, replace=True) for n, name in enumerate("abc"))),
    ),
    Scenario(
        "the last one while it runs is kept",
        while_one_runs(double("a", 1, "hold", **LAST), double("b", 2, **LAST), double("c", 3, **LAST)),
    ),
    Scenario(
        "the last one kept after a failure",
        run(failing("a", 1, deduplication={"id": "x", **LAST}), double("b", **LAST)),
    ),
    Scenario("its key removed by Node", key_removed),
    Scenario("its key removed for its job", key_removed_by_its_job),
    Scenario("the one that waited removed", waiting_one_removed),
]
