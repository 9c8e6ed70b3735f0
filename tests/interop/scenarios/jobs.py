"""How scenarios write their jobs and their simplest scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from interop.stage import Added, Stage

A_MINUTE = 60_000
# Later than whatever does not wait for a clock, also on a busy machine.
LATER, MUCH_LATER = 500, 1_000


def a_job(job_id: str, name: str = "complete", data: dict[str, Any] | None = None, **opts: Any) -> Added:
    return {"name": name, "data": data or {}, "opts": {"jobId": job_id, **opts}}


def failing(job_id: str, times: int = 1, **opts: Any) -> Added:
    return a_job(job_id, "fail", {"times": times, "says": "no"}, **opts)


def a_flow(parent: Added, *children: Added, queue: str = "email") -> Added:
    return {"queueName": queue, **parent, "children": [{"queueName": "email", **child} for child in children]}


def run(*jobs: Added) -> Callable[[Stage], Awaitable[None]]:
    """Let the worker at all of them at once, and wait until all have ended."""

    async def play(stage: Stage) -> None:
        await stage.add(*jobs)
        await stage.open()
        await stage.quiet()

    return play


def grow(*flows: Added) -> Callable[[Stage], Awaitable[None]]:
    async def play(stage: Stage) -> None:
        for flow in flows:
            await stage.node.flow("add", flow)
        await stage.open()
        await stage.quiet()

    return play
