"""Which job is next: delays, priorities, pauses, and what Node changes about them while a worker works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interop.scenarios.jobs import A_MINUTE, LATER, MUCH_LATER, a_job, failing, run
from interop.stage import Scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from interop.stage import Added, Stage


def behind_another(act: Callable[[Stage], Awaitable[None]], *jobs: Added) -> Callable[[Stage], Awaitable[None]]:
    """Let Node act while the worker's only slot is taken and these jobs are behind that one."""

    async def play(stage: Stage) -> None:
        await stage.add(a_job("first", "hold"), *jobs)
        await stage.open()
        await stage.has_begun("first")
        await act(stage)
        await stage.let_end("first")
        await stage.quiet()

    return play


async def promote(stage: Stage) -> None:
    await stage.node.job("b", "promote")


async def promote_all(stage: Stage) -> None:
    await stage.node.queue("promoteJobs")


async def sooner(stage: Stage) -> None:
    await stage.node.job("a", "changeDelay", 20)


async def later(stage: Stage) -> None:
    await stage.node.job("a", "changeDelay", MUCH_LATER)


async def more_urgent(stage: Stage) -> None:
    await stage.node.job("b", "changePriority", {"priority": 1})


async def no_priority(stage: Stage) -> None:
    await stage.node.job("b", "changePriority", {"priority": 0})


async def to_the_head(stage: Stage) -> None:
    await stage.node.job("b", "changePriority", {"priority": 0, "lifo": True})


async def paused_while_one_runs(stage: Stage) -> None:
    await stage.add(a_job("a", "hold"), a_job("b"), a_job("c", priority=1), a_job("d", delay=MUCH_LATER))
    await stage.open()
    await stage.has_begun("a")
    await stage.node.queue("pause")
    await stage.let_end("a")
    await stage.reaches("a", "completed")
    await stage.add(a_job("e"))
    await stage.open()
    await stage.quiet()


async def put_into_a_paused_queue(stage: Stage) -> None:
    await stage.add(failing("a", 1, attempts=2, backoff=A_MINUTE), a_job("b", "hold"))
    await stage.open()
    await stage.has_begun("b")
    await stage.node.queue("pause")
    await stage.let_end("b")
    await stage.reaches("b", "completed")
    await stage.node.job("a", "promote")
    await stage.open()
    await stage.quiet()


ORDERS = [
    Scenario(
        "priorities", run(a_job("low", priority=10), a_job("high", priority=1), a_job("none"), a_job("top", lifo=True))
    ),
    Scenario("a priority kept at once", run(failing("a", 1, priority=1, attempts=2), a_job("b", priority=2))),
    Scenario(
        "a priority kept late", run(failing("a", 1, priority=5, attempts=2, backoff=LATER), a_job("b", priority=6))
    ),
    Scenario("delayed", run(a_job("a", delay=LATER), a_job("b"))),
    Scenario("delayed with a priority", run(a_job("a", delay=LATER, priority=3), a_job("b", priority=4))),
    Scenario("promoted", behind_another(promote, a_job("a", delay=LATER), a_job("b", delay=A_MINUTE), a_job("c"))),
    Scenario(
        "all promoted",
        behind_another(promote_all, a_job("a", delay=A_MINUTE), a_job("b", delay=A_MINUTE, priority=2), a_job("c")),
    ),
    Scenario("made sooner", behind_another(sooner, a_job("a", delay=A_MINUTE), a_job("b", delay=LATER))),
    Scenario("made later", behind_another(later, a_job("a", delay=A_MINUTE), a_job("b", delay=LATER))),
    Scenario("made more urgent", behind_another(more_urgent, a_job("a", priority=2), a_job("b", priority=3))),
    Scenario("made urgent beside those without", behind_another(more_urgent, a_job("a"), a_job("b"), a_job("c"))),
    Scenario("deprived of its priority", behind_another(no_priority, a_job("a"), a_job("b", priority=3), a_job("c"))),
    Scenario("put at the head", behind_another(to_the_head, a_job("a"), a_job("b", priority=3), a_job("c"))),
    Scenario("paused while one runs", paused_while_one_runs),
    Scenario("promoted into a paused queue", put_into_a_paused_queue),
]
