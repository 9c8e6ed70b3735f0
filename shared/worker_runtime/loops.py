"""What every long-running loop of a worker shares: a stop signal in two phases and a heartbeat that liveness reads."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")
BEAT_SECONDS = 1.0
# How long cancelled work may take to clean up.
UNWIND_SECONDS = 0.2


class StopSignal:
    """Asked once or many times; the deadline may only move closer. Created and used on one event loop."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self._deadline: float | None = None
        self._deadline_moved = asyncio.Event()

    def request(self, grace_seconds: float) -> None:
        """Stop taking new work now; work in flight has `grace_seconds` (0: hand it back at once)."""
        deadline = time.monotonic() + grace_seconds
        if self._deadline is None or deadline < self._deadline:
            self._deadline = deadline
            self._deadline_moved.set()
        self.requested.set()

    async def deadline(self) -> None:
        """Return when the grace is over; a second signal that shortens it is noticed at once."""
        await self.requested.wait()
        while (left := (self._deadline or 0.0) - time.monotonic()) > 0:
            self._deadline_moved.clear()
            await wait_at_most(left, self._deadline_moved.wait())

    async def sleep(self, seconds: float) -> bool:
        """Wait `seconds`, or less when a stop is requested; true when it was."""
        await wait_at_most(seconds, self.requested.wait())
        return self.requested.is_set()


class Heartbeat:
    """The moment a loop last turned. Written by the loop, read from the health server's thread."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def beat(self) -> None:
        """Say that the loop has turned."""
        self._last = time.monotonic()

    @property
    def age_seconds(self) -> float:
        """Seconds since the loop last turned."""
        return time.monotonic() - self._last

    async def while_waiting(self, awaitable: Awaitable[T]) -> T:
        """Await something that has a timeout of its own, beating meanwhile: waiting for Redis is not being stuck."""
        task = asyncio.ensure_future(awaitable)
        try:
            while not (await asyncio.wait({task}, timeout=BEAT_SECONDS))[0]:
                self.beat()
        finally:
            if not task.done():
                task.cancel()
        self.beat()
        return task.result()


class Loop(Protocol):
    """One of the named loops that make a worker. The process ends when any of them does."""

    name: str

    @property
    def heartbeat(self) -> Heartbeat:
        """When it last turned. Does not block."""
        ...

    async def run(self, stop: StopSignal) -> None:
        """Work until `stop` is requested, then drain until its deadline and return.

        May not return earlier (unless the process is asked to drain its queues), may raise only for bugs: an outage
        is waited out. Beats at least once a second.
        """
        ...


async def wait_at_most(seconds: float, *awaitables: Awaitable[object]) -> None:
    """Wait for the first of `awaitables` to end, or for `seconds`; neither is an error."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
