"""What people do to a queue through Node while a worker works: drain, clean, remove, obliterate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interop.scenarios.jobs import A_MINUTE, a_flow, a_job, failing
from interop.stage import Scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from interop.stage import Stage


def beside_everything(method: str, *args: Any) -> Callable[[Stage], Awaitable[None]]:
    """Call a method of Node's `Queue` while there is a job in every state, the worker's only slot taken."""

    async def play(stage: Stage) -> None:
        await stage.add(a_job("good"), failing("bad"), a_job("first", "hold"), a_job("waits"))
        await stage.add(a_job("later", delay=A_MINUTE), a_job("urgent", priority=1))
        await stage.open()
        await stage.has_begun("first")
        await stage.node.queue(method, *args)
        await stage.add(a_job("next"))
        await stage.let_end("first")
        await stage.quiet(but_for="delayed")  # or what is promoted comes before or after what the worker takes
        await stage.node.queue("promoteJobs")
        await stage.quiet()

    return play


async def a_waiting_family_removed(stage: Stage) -> None:
    await stage.node.flow("add", a_flow(a_job("parent", "children"), a_job("a"), a_job("b", delay=A_MINUTE)))
    await stage.node.queue("remove", "parent")
    await stage.add(a_job("z"))
    await stage.open()
    await stage.quiet()


WITH_DELAYED = True

OPERATORS = [
    Scenario("drained", beside_everything("drain")),
    Scenario("drained with what is delayed", beside_everything("drain", WITH_DELAYED)),
    Scenario("completed ones cleaned", beside_everything("clean", 0, 0, "completed")),
    Scenario("failed ones cleaned", beside_everything("clean", 0, 0, "failed")),
    Scenario("waiting ones cleaned", beside_everything("clean", 0, 0, "wait")),
    Scenario("delayed ones cleaned", beside_everything("clean", 0, 0, "delayed")),
    Scenario("prioritized ones cleaned", beside_everything("clean", 0, 0, "prioritized")),
    Scenario("running ones cleaned", beside_everything("clean", 0, 0, "active")),
    Scenario("one removed", beside_everything("remove", "waits")),
    Scenario("all retried", beside_everything("retryJobs", {"state": "completed"})),
    Scenario("a waiting family removed", a_waiting_family_removed),
]
