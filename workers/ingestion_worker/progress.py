"""A job's progress, as Node's QueueEvents and bull-board show it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from types import TracebackType

    from worker_runtime.job import Job

__all__ = ["Progress"]

SECONDS_BETWEEN = 0.5


class Progress:
    """Writes `{"stage", "done", "total"}` now and then: a document may have thousands of pages, and takes seconds."""

    def __init__(self, job: Job[Any], stage: str) -> None:
        self._job = job
        self._stage = stage
        self._news = asyncio.Event()
        self._done, self._total = 0, 0
        self._writer: asyncio.Task[None] | None = None

    def report(self, done: int, total: int) -> None:
        """Remember how much is done, and of how much."""
        self._done, self._total = done, total
        self._news.set()

    async def __aenter__(self) -> Self:
        self._writer = asyncio.create_task(self._write())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        if error is None and self._news.is_set():
            await self._tell()

    async def _write(self) -> None:
        while True:
            await self._news.wait()
            await self._tell()
            await asyncio.sleep(SECONDS_BETWEEN)

    async def _tell(self) -> None:
        self._news.clear()
        try:
            await self._job.report_progress({"stage": self._stage, "done": self._done, "total": self._total})
        except (RedisError, RedisUnavailable):
            # Nobody sees it then, and the work goes on; whether the job is still ours, its lease knows.
            self._news.set()
