"""One task that leaves a trace, on an app for each contender."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.workflows.effects import step

if TYPE_CHECKING:
    from procrastinate import App
    from procrastinate.tasks import Task


def traced(app: App) -> Task[..., Any, ...]:
    """Put the task on an app."""

    @app.task(name="bench.trace", queue="bench")
    async def trace(**given: Any) -> None:
        await step(given["number"], 1)

    return trace
