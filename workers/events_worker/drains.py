"""Dead letters retried at a rate, in the background of the worker: what `POST /admin/dlq/drain` orders."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from events_worker.dead_letters import Pace
from worker_runtime.loops import Heartbeat, wait_at_most
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from events_worker.dead_letters import DeadLetters
    from events_worker.store import Edit, Selection
    from worker_runtime.loops import StopSignal

log = structlog.get_logger()

# Until there is something to drain, or a stop.
IDLE_SECONDS = 60.0


@dataclass(slots=True)
class Drain:
    """An order, how far it is, and whether it is still at work. `rate` is in events a second."""

    selection: Selection
    edit: Edit
    rate: float
    limit: int | None
    matched: int
    started: str
    retried: int = 0
    running: bool = True
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Write it for people."""
        return {
            "eventType": self.selection.event_type,
            "code": self.selection.code,
            "rate": self.rate,
            "limit": self.limit,
            "by": self.edit.by,
            "reason": self.edit.reason,
            "started": self.started,
            "matched": self.matched,
            "retried": self.retried,
            "running": self.running,
            "error": self.error,
        }


class Drains:
    """The loop that drains, one order at a time; a stop ends it between two chunks."""

    name = "dlq-drain"

    def __init__(self, dead_letters: DeadLetters) -> None:
        self.heartbeat = Heartbeat()
        # The order at work, or the last one.
        self.newest: Drain | None = None
        self._dead_letters = dead_letters
        self._ordered = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether an order is at work."""
        return self.newest is not None and self.newest.running

    def begin(self, drain: Drain) -> None:
        """Carry out an order; there may be none at work."""
        self.newest = drain
        self._ordered.set()

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`."""
        while not stop.requested.is_set():
            waits = (stop.requested.wait(), self._ordered.wait())
            await self.heartbeat.while_waiting(wait_at_most(IDLE_SECONDS, *waits))
            if self._ordered.is_set() and self.newest is not None:
                self._ordered.clear()
                await self.heartbeat.while_waiting(self._carry_out(self.newest, stop))

    async def _carry_out(self, drain: Drain, stop: StopSignal) -> None:
        chunks = self._dead_letters.retry_all(
            drain.selection, drain.edit, pace=Pace(drain.rate), stop=stop, most=drain.limit
        )
        try:
            async for retried in chunks:
                drain.retried += retried
        except DatabaseUnavailable as outage:
            drain.error = str(outage)
        finally:
            drain.running = False
        log.info("dlq_drained", stopped=stop.requested.is_set(), **drain.as_json())
