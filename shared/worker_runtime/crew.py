"""The loops of a worker at work, and the context they live in."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import structlog

from worker_runtime.ending import FAILED, Ending
from worker_runtime.loops import UNWIND_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from worker_runtime.ending import StopOrders
    from worker_runtime.health_board import HealthBoard
    from worker_runtime.loops import Loop
    from worker_runtime.metrics import Metrics

log = structlog.get_logger()

# Handing jobs back after the deadline takes a few round trips to Redis.
HAND_BACK_SECONDS = 2.0
LEAVE_SECONDS = 2.0
FIRST_TURN_LOOK_SECONDS = 0.01


class Room:
    """A worker's `on_start` context, entered and left by one task of its own: the only teardown path there is."""

    def __init__(self, context: AbstractAsyncContextManager[Sequence[Loop]]) -> None:
        self._context = context
        self._leave = asyncio.Event()
        self._opened: asyncio.Future[Sequence[Loop]] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def enter(self) -> Sequence[Loop]:
        """Open the worker's resources and return its loops; raises what `on_start` raises."""
        self._task = asyncio.create_task(self._stay(), name="on_start")
        either: set[asyncio.Future[Any]] = {self._task, self._opened}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not self._opened.done():
            self._task.result()
        return self._opened.result()

    async def leave(self) -> Ending | None:
        """Close the resources, half-opened ones too, in `LEAVE_SECONDS` at most; return how that failed, if it did."""
        if self._task is None:
            return None
        self._leave.set()
        if not self._opened.done():
            self._task.cancel()
        await asyncio.wait({self._task}, timeout=LEAVE_SECONDS)
        if not self._task.done():
            return Ending(FAILED, f"closing took longer than {LEAVE_SECONDS:g} s")
        error = None if self._task.cancelled() else self._task.exception()
        return Ending(FAILED, f"closing failed: {describe(error)}") if error and self._opened.done() else None

    async def _stay(self) -> None:
        async with self._context as loops:
            self._opened.set_result(loops)
            await self._leave.wait()


class Crew:
    """The running loops. One that ends unasked stops the worker; none can refuse to stop for ever."""

    def __init__(self, loops: Sequence[Loop], orders: StopOrders, board: HealthBoard, metrics: Metrics) -> None:
        self._loops = loops
        self._orders = orders
        self._board = board
        self._metrics = metrics
        self._tasks: dict[asyncio.Task[None], Loop] = {}
        self._began = 0.0

    def start(self) -> None:
        """Run every loop."""
        self._began = time.monotonic()
        for loop in self._loops:
            self._board.watch(loop.name, loop.heartbeat)
            self._metrics.watch_loop(loop.name, loop.heartbeat)
            task = asyncio.create_task(loop.run(self._orders.stop), name=f"loop {loop.name}")
            self._tasks[task] = loop
            task.add_done_callback(self._ended)

    async def first_turn(self) -> None:
        """Return when every loop has turned once since it was started."""
        # A beat is a number, not an event, so that beating is cheap; hence the looking.
        while any(loop.heartbeat.age_seconds >= time.monotonic() - self._began for loop in self._loops):  # noqa: ASYNC110
            await asyncio.sleep(FIRST_TURN_LOOK_SECONDS)

    async def drained(self) -> None:
        """Return when every loop that can say so says that nothing is left to do, all at the same time."""
        empty: list[asyncio.Event] = [loop.drained for loop in self._loops if hasattr(loop, "drained")]
        while not all(event.is_set() for event in empty):
            for event in empty:
                await event.wait()

    async def finish(self) -> None:
        """Wait for the loops to drain, until the deadline and what handing back takes; then cancel them."""
        deadline = asyncio.ensure_future(self._orders.stop.deadline())
        while self._unfinished and not deadline.done():
            await asyncio.wait({deadline, *self._unfinished}, return_when=asyncio.FIRST_COMPLETED)
        deadline.cancel()
        await self._wait(HAND_BACK_SECONDS)
        if self._unfinished:
            names = ", ".join(self._tasks[task].name for task in self._unfinished)
            self._orders.give(Ending(FAILED, f"drain deadline exceeded: {names} did not stop"))
            for task in self._unfinished:
                task.cancel()
            await self._wait(UNWIND_SECONDS)

    @property
    def handed_back(self) -> int:
        """Jobs that outlived the deadline and went back to their queues."""
        return sum(getattr(loop, "handed_back", 0) for loop in self._loops)

    @property
    def _unfinished(self) -> set[asyncio.Task[None]]:
        return {task for task in self._tasks if not task.done()}

    async def _wait(self, seconds: float) -> None:
        if self._unfinished:
            await asyncio.wait(self._unfinished, timeout=seconds)

    def _ended(self, task: asyncio.Task[None]) -> None:
        loop = self._tasks[task]
        self._board.forget(loop.name)
        self._metrics.forget_loop(loop.name)
        if ending := self._fault(task, loop):
            log.error("loop_ended", loop=loop.name, reason=ending.reason, exc_info=_error(task))
            self._orders.give(ending)

    def _fault(self, task: asyncio.Task[None], loop: Loop) -> Ending | None:
        if error := _error(task):
            return Ending(FAILED, f"loop {loop.name} crashed: {describe(error)}")
        if not self._orders.stop.requested.is_set():
            return Ending(FAILED, f"loop {loop.name} ended though nobody asked it to: a bug")
        return None


def _error(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


def describe(error: BaseException) -> str:
    """Name an error for the last line."""
    return f"{type(error).__name__}: {error}".rstrip(": ")
