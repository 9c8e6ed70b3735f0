"""Defers jobs, for `ours` or `plain`, by the same calls of Procrastinate's."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.workflows.task import do

if TYPE_CHECKING:
    from collections.abc import Sequence

    from procrastinate import App
    from procrastinate.tasks import Task


class Defers:
    """See `Starter`."""

    def __init__(self, app: App, trace: Task[..., Any, ...]) -> None:
        self._app = app
        self._trace = trace

    async def prepare(self) -> None:
        """Apply Procrastinate's schema."""
        async with self._app.open_async():
            await self._app.schema_manager.apply_schema_async()

    async def open(self) -> None:
        """Connect."""
        await self._app.open_async()

    async def start(self, inputs: Sequence[dict[str, Any]]) -> None:
        """Defer a job with each input, in one call."""
        await self._trace.batch_defer_async(*inputs)


class Ours(Defers):
    """With our schema on top of Procrastinate's."""

    async def prepare(self) -> None:
        """Apply both."""
        from worker_ops.jobs.schema import migrate_jobs  # noqa: PLC0415  nothing else here needs it

        migrate_jobs(os.environ["DATABASE_URL"], lambda _: None)


def chosen(name: str) -> Defers:
    if name == "ours":
        from benchmarks.jobs.ours_tasks import job_queue, trace  # noqa: PLC0415  each has an app of its own

        return Ours(job_queue, trace)
    from benchmarks.jobs import plain_app  # noqa: PLC0415

    return Defers(plain_app.app, plain_app.trace)


if __name__ == "__main__":
    asyncio.run(do(chosen(sys.argv[1])))
