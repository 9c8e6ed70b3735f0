"""Tells workflow-workers that there is something to run. They would find it by themselves, a poll later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from worker_runtime.loops import BEAT_SECONDS, Heartbeat, wait_at_most
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from events_worker.store import WakeUpStore
    from worker_runtime.loops import StopSignal

log = structlog.get_logger()

# A notification makes every commit of its cluster wait for its turn: many starts share one.
EVERY_SECONDS = 0.05


class WakeUp:
    """Notifies after commits, never within one, and at most once in `EVERY_SECONDS`."""

    name = "workflow-wake-up"

    def __init__(self, store: WakeUpStore) -> None:
        self.heartbeat = Heartbeat()
        self._store = store
        self._committed = asyncio.Event()

    def hint(self) -> None:
        """Say that something has been committed. Does not block."""
        self._committed.set()

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`."""
        while not stop.requested.is_set():
            self.heartbeat.beat()
            await wait_at_most(BEAT_SECONDS / 2, self._committed.wait(), stop.requested.wait())
            if self._committed.is_set():
                self._committed.clear()
                await self._tell()
                await stop.sleep(EVERY_SECONDS)

    async def _tell(self) -> None:
        try:
            await self.heartbeat.while_waiting(self._store.tell())
        except DatabaseUnavailable as outage:
            log.debug("wake_up_lost", error=str(outage))
