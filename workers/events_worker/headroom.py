"""How far the relay may run ahead of the handlers: what Redis cannot hold is safe, and seen, in the outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from worker_runtime.bullmq.producer import JobQueue
    from worker_runtime.metrics import OutboxMetrics

log = structlog.get_logger()

# Redis is asked once for this part of what it may hold, for asking waits behind what is being published. Two relays
# that ask at the same moment may be that much beyond the limit.
PART = 20


class Headroom:
    """Lets events be claimed while fewer than `most_waiting` jobs wait for a handler; 0: always."""

    def __init__(self, queue: JobQueue, most_waiting: int, metrics: OutboxMetrics) -> None:
        self._queue = queue
        self._most_waiting = most_waiting
        self._most_at_once = max(1, most_waiting // PART)
        self._metrics = metrics
        self._left = 0
        self._held_back = False

    async def room_for(self, events: int, on_their_way: int) -> int:
        """Say how many of so many events may be claimed now, beside those claimed and `on_their_way` to the queue.

        Raises `RedisUnavailable` or `RedisError`.
        """
        if not self._most_waiting:
            return events
        if self._left <= 0:
            await self._look(on_their_way)
        return min(events, self._left)

    def claimed(self, events: int) -> None:
        """Count what was claimed."""
        self._left -= events

    async def _look(self, on_their_way: int) -> None:
        waiting = await self._queue.depth() + on_their_way
        room = max(0, self._most_waiting - waiting)
        # Once full, it stays so until there is room for more than a few, or each claim would be for a few.
        held_back = room < (self._most_at_once if self._held_back else 1)
        self._left = 0 if held_back else min(room, self._most_at_once)
        if held_back != self._held_back:
            self._held_back = held_back
            self._metrics.held_back.set(held_back)
            said = "outbox_relay_holds_back" if held_back else "outbox_relay_goes_on"
            log.info(said, waiting=waiting, most=self._most_waiting)
