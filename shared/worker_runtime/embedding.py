"""A worker within another process, such as an API: on its event loop, and with nothing of the process in its hands.

    async with embedded(JobsWorker, load(JobsSettings)) as worker:
        ...
        if reason := worker.unready_because: ...

Signals, exit codes, logging, the health server and the last resort belong to the process. A worker that has failed -
its database was away for longer than START_TIMEOUT_MS, a loop crashed - begins again, for whatever else the process
does goes on, and nobody else would restart it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic

import structlog

from worker_runtime.ending import CLOSING_SECONDS, FAILED, Ending, StopOrders
from worker_runtime.loops import wait_at_most
from worker_runtime.runtime import S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker_runtime.runtime import Runtime
    from worker_runtime.worker import Worker

__all__ = ["EmbeddedWorker", "embedded"]

log = structlog.get_logger()

PAUSES_SECONDS = (0.5, 1.0, 2.0, 5.0)
# Who ran for so long has not failed again but anew.
STEADY_SECONDS = 60.0


class EmbeddedWorker(Generic[S]):
    """One life of a worker after the other, until it is asked to stop."""

    def __init__(
        self, worker: Worker[S], settings: S, pauses_seconds: Sequence[float] = PAUSES_SECONDS, *, steady: float
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._pauses = pauses_seconds
        self._steady = steady
        self._stop = asyncio.Event()
        self._failure: Ending | None = None
        self._begin()

    @property
    def runtime(self) -> Runtime[S]:
        """What the life at hand is made of: its health board, its metrics. The next life has another."""
        return self._runtime

    @property
    def unready_because(self) -> str | None:
        """Say why it does not do its work just now; `None` while it does. Asks nobody."""
        name, board = self._worker.name, self._runtime.health
        if board.ready:
            return None
        missing = " and ".join(dependency.name for dependency in self._runtime.dependencies.missing)
        if board.phase == "running":
            return f"{missing} does not answer" if missing else f"the event loop of the {name} was blocked"
        if self._failure is not None:
            return f"the {name} failed and begins again: {self._failure.reason}"
        return f"the {name} waits for {missing}" if missing else f"the {name} is {board.phase}"

    async def run(self) -> None:
        """Live, and live again after each failure with a growing pause; returns after `stop`."""
        structlog.contextvars.bind_contextvars(worker=self._worker.name)
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            ending = await self._live()
            if self._stop.is_set():
                log.info("embedded_worker_stopped", reason=ending.reason)
                return
            failures = 1 if time.monotonic() - began > self._steady else failures + 1
            pause = self._pauses[min(failures, len(self._pauses)) - 1]
            self._failure = ending
            log.error("embedded_worker_failed", reason=ending.reason, againInSeconds=pause)
            await wait_at_most(pause, self._stop.wait())
            self._begin()

    def stop(self) -> None:
        """Take no more jobs; those in hand have SHUTDOWN_TIMEOUT_MS."""
        self._stop.set()
        self._orders.give(Ending(0, "its process stops"))

    def _begin(self) -> None:
        self._runtime = self._worker.runtime(self._settings)
        self._orders = StopOrders(self._settings.shutdown_timeout_ms / 1000, self._runtime.announce_draining)

    async def _live(self) -> Ending:
        try:
            await self._worker.obey(self._orders, self._runtime)
        except Exception as error:
            log.exception("embedded_worker_broke")
            return Ending(FAILED, f"a bug: {type(error).__name__}: {error}")
        return self._orders.ending


@asynccontextmanager
async def embedded(
    worker: type[Worker[S]],
    settings: S,
    *,
    pauses_seconds: Sequence[float] = PAUSES_SECONDS,
    steady_seconds: float = STEADY_SECONDS,
) -> AsyncIterator[EmbeddedWorker[S]]:
    """Let a worker live beside the block, which need not wait for it. On leaving, its jobs are drained.

    Leaving takes SHUTDOWN_TIMEOUT_MS and 4.5 s more at most: jobs that take longer are handed back.
    """
    one = EmbeddedWorker(worker(), settings, pauses_seconds, steady=steady_seconds)
    life: asyncio.Task[Any] = asyncio.create_task(one.run(), name=worker.name)
    try:
        yield one
    finally:
        one.stop()
        await asyncio.wait({life}, timeout=settings.shutdown_timeout_ms / 1000 + CLOSING_SECONDS)
        if not life.done():
            log.error("embedded_worker_left_behind", reason="it would not stop; its jobs are recovered by others")
            life.cancel()
