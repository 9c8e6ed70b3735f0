"""Slots beyond an engine's concurrency, for urgent jobs alone: those that were added `lifo`, in front of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from worker_runtime.bullmq.engine_options import EngineOptions
    from worker_runtime.bullmq.scripts import QueueScripts

# How often a full engine looks whether the next in line is urgent.
LOOK_SECONDS = 0.1


class Reserve:
    """What `in_flight` jobs leave of it. Between a look and the claim another worker may take the urgent job."""

    def __init__(self, scripts: QueueScripts, options: EngineOptions) -> None:
        self._scripts = scripts
        self._first = options.concurrency
        self._last = options.concurrency + options.reserve

    def is_free(self, in_flight: int) -> bool:
        """Tell whether all common slots are taken, and not all of these."""
        return self._first <= in_flight < self._last

    def is_used(self, in_flight: int) -> bool:
        """Tell whether a job that ends now frees one of these and no common slot."""
        return in_flight > self._first

    async def is_wanted(self, in_flight: int) -> bool:
        """Tell whether one is free and an urgent job is next in line. Never raises."""
        if not self.is_free(in_flight):
            return False
        try:
            return await self._scripts.urgent_waits()
        except (RedisUnavailable, RedisError):
            return False
