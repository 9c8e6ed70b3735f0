"""Blocks on a queue's marker, on a connection of its own, so that an idle worker wakes within a millisecond."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from worker_runtime.redis.connection import PAUSE_AFTER_ERROR_SECONDS, RedisConnection, RedisError, RedisUnavailable

if TYPE_CHECKING:
    from worker_runtime.bullmq.names import QueueName

log = structlog.get_logger()

# Reading from it takes the marker away from every other worker, and a marker can be lost with its reader: this is how
# long that can hide a job.
BLOCK_SECONDS = 5
RELEASE_SECONDS = 0.5
UNBLOCK_AGAIN_SECONDS = 0.01


class MarkerWaiter:
    """One blocking read at a time, which lasts over several calls of `wait`."""

    def __init__(self, blocking: RedisConnection, commands: RedisConnection, queue: QueueName) -> None:
        self._blocking = blocking
        self._commands = commands
        self._marker = queue.key("marker")
        self._read: asyncio.Task[float] | None = None
        self._due = 0.0

    @property
    def knows_of_delayed(self) -> bool:
        """Whether a job is known that will run later."""
        return self._due > 0

    def expect_delayed(self, due_ms: int) -> None:
        """Wake for a delayed job by a local timer: a blocking read's own timeout is up to 90 ms late."""
        if due_ms:
            self._due = due_ms / 1000

    async def wait(self, seconds: float, stop: asyncio.Event) -> bool:
        """Wait for a marker, a delayed job or the stop, for `seconds` at most; true when it is worth fetching."""
        if self._read is None:
            self._read = asyncio.create_task(self._read_marker())
        stopped = asyncio.ensure_future(stop.wait())
        try:
            timeout = max(0.0, min(seconds, self._seconds_until_due()))
            await asyncio.wait({self._read, stopped}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        return self._take_marker() or self._take_due()

    async def release(self) -> None:
        """End a read under way and give back what it took: another worker may have a slot for it when we have not."""
        if self._read is None:
            return
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._end_read(self._read)
        except (RedisUnavailable, RedisError, TimeoutError) as error:
            # It cannot be ended from here. Every other reader looks again by itself within BLOCK_SECONDS.
            log.debug("marker_not_given_back", marker=self._marker, error=str(error))
        if self._read is not None:
            self._read.cancel()
            self._read = None

    async def _end_read(self, read: asyncio.Task[float]) -> None:
        while not read.done():
            # Asked too early it finds nobody blocked and is lost: the read is on its way over another connection.
            blocked, commands = [await redis.server_of(self._marker) for redis in (self._blocking, self._commands)]
            await commands.call("CLIENT", "UNBLOCK", blocked.client_id)
            await asyncio.wait({read}, timeout=UNBLOCK_AGAIN_SECONDS)
        if self._take_marker():
            await self._commands.call("ZADD", self._marker, 0, "0")

    def _seconds_until_due(self) -> float:
        return self._due - time.time() if self._due else float("inf")

    def _take_marker(self) -> bool:
        if self._read is None or not self._read.done():
            return False
        read, self._read = self._read, None
        due = read.result()
        if due > time.time():
            # The marker of a delayed job, which is now ours to wake up for.
            self._due = min(due, self._due or due)
            return False
        return True

    def _take_due(self) -> bool:
        if self._seconds_until_due() > 0:
            return False
        self._due = 0.0
        return True

    async def _read_marker(self) -> float:
        """Return when to fetch, in seconds since the epoch: 0 (now) also after an error or a silence."""
        try:
            answer = await self._blocking.call("BZPOPMIN", self._marker, BLOCK_SECONDS)
        except (RedisUnavailable, RedisError):
            await asyncio.sleep(PAUSE_AFTER_ERROR_SECONDS)
            return 0.0
        return float(answer[2]) / 1000 if answer else 0.0
