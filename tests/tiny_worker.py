"""The smallest real worker there can be, for tests that start, stop and kill processes.

What it does with a job is written in the job; how it starts is written in its own settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import structlog
from pydantic import BaseModel, Field

from worker_runtime.loops import Heartbeat, Loop, StopSignal
from worker_runtime.outcome import Done, Outcome
from worker_runtime.settings import WorkerSettings
from worker_runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker_runtime.job import Job
    from worker_runtime.runtime import Runtime


log = structlog.get_logger()


class TinySettings(WorkerSettings):
    """Of the tiny worker."""

    health_port: int = 0
    tiny_start: Literal["well", "crash", "hang", "crash_at_close"] = Field("well", description="start")
    tiny_crash_file: str | None = Field(None, description="a loop crashes when this file exists")


class Task(BaseModel):
    """What a job asks for."""

    do: Literal["nothing", "rest", "refuse_to_end", "block"] = "nothing"
    seconds: float = 0.0


class Crasher:
    """Turns quietly, until it is told to crash."""

    name = "crasher"

    def __init__(self, settings: TinySettings) -> None:
        self.heartbeat = Heartbeat()
        self._settings = settings

    async def run(self, stop: StopSignal) -> None:
        path = self._settings.tiny_crash_file
        while not await stop.sleep(0.05):
            self.heartbeat.beat()
            if path is not None and await asyncio.to_thread(_exists, path):
                raise ZeroDivisionError("told to crash")


class TinyWorker(Worker[TinySettings]):
    name = "tiny-worker"
    settings_type = TinySettings
    queue_keys = ("EVENTS",)

    @asynccontextmanager
    async def on_start(self, runtime: Runtime[TinySettings]) -> AsyncIterator[Sequence[Loop]]:
        settings = runtime.settings
        if settings.tiny_start == "crash":
            raise ValueError("cannot open what I need")
        if settings.tiny_start == "hang":
            await asyncio.Event().wait()
        runtime.breaker("partner")
        yield [runtime.consumer("EVENTS", Task, handle), Crasher(settings)]
        runtime.log.info("room_closed")
        if settings.tiny_start == "crash_at_close":
            raise ValueError("cannot close what I opened")


async def handle(job: Job[Task]) -> Outcome:
    task = job.payload
    log.info("task_started")
    if task.do == "rest":
        await asyncio.sleep(task.seconds)
    if task.do == "refuse_to_end":
        await _refuse(task.seconds)
    if task.do == "block":
        time.sleep(task.seconds)  # noqa: ASYNC251  a handler that must be found out
    return Done()


async def _refuse(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(asyncio.CancelledError, TimeoutError):
            await asyncio.sleep(until - time.monotonic())


def _exists(path: str) -> bool:
    try:
        with open(path, "rb"):  # noqa: PTH123
            return True
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    TinyWorker.main()
