"""The relay: committed events leave the outbox for the queue, the next of each aggregate when the last is handled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from events_worker.outbox import backoff_seconds
from worker_runtime.loops import Heartbeat, wait_at_most
from worker_runtime.postgres import DatabaseUnavailable
from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from events_worker.headroom import Headroom
    from events_worker.outbox import OutboxEvent
    from events_worker.partitions import Partitions
    from events_worker.publisher import Publisher
    from events_worker.store import OutboxStore
    from worker_runtime.loops import StopSignal
    from worker_runtime.metrics import OutboxMetrics

log = structlog.get_logger()

# None of these is an event's fault: it keeps its place and its retries, and goes on when the server is back.
OUTAGES = (DatabaseUnavailable, RedisUnavailable, RedisError)


class Relay:
    """Claims what comes next in its partitions and publishes it, one batch while the next is claimed."""

    name = "outbox-relay"

    def __init__(
        self,
        store: OutboxStore,
        publisher: Publisher,
        partitions: Partitions,
        headroom: Headroom,
        metrics: OutboxMetrics,
        *,
        batch_size: int,
        poll_seconds: float,
        hinted: asyncio.Event,
    ) -> None:
        self.heartbeat = Heartbeat()
        # Set while nothing can be claimed, here or in a partition whose owner may be dead; what `--drain` waits for.
        self.drained = asyncio.Event()
        self._store = store
        self._publisher = publisher
        self._partitions = partitions
        self._headroom = headroom
        self._metrics = metrics
        self._batch_size = batch_size
        self._poll_seconds = poll_seconds
        # Set by whoever heard of a commit; hints that come together count as one.
        self._hinted = hinted
        self._claimed: list[OutboxEvent] = []
        self._failures_in_a_row = 0

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`. What was claimed is published before the return, unless Redis is away."""
        while not stop.requested.is_set():
            pause = await self.heartbeat.while_waiting(self._turn())
            if pause > 0:
                await self.heartbeat.while_waiting(self._rest(stop, pause))
        if self._claimed:
            await self.heartbeat.while_waiting(self._turn(claim=False))

    async def _rest(self, stop: StopSignal, seconds: float) -> None:
        hints = () if self._failures_in_a_row else (self._hinted.wait(),)
        await wait_at_most(seconds, stop.requested.wait(), *hints)

    async def _turn(self, *, claim: bool = True) -> float:
        """Publish the batch before, claim the next meanwhile, and return the seconds until the next turn."""
        self._hinted.clear()
        claiming = self._claim() if claim else _nothing()
        publishing = self._publisher.publish(self._claimed)
        claimed, published = await asyncio.gather(claiming, publishing, return_exceptions=True)
        # The publisher keeps what it could not publish.
        self._claimed = claimed if isinstance(claimed, list) else []
        for outcome in (claimed, published):
            if isinstance(outcome, OUTAGES):
                return self._wait_out(outcome)
            if isinstance(outcome, BaseException):
                raise outcome
        self._note_recovery()
        return 0.0 if self._claimed or self._publisher.kept else self._poll_seconds

    async def _claim(self) -> list[OutboxEvent]:
        # What Redis did not take is enough to hold in memory: the rest is safer, and seen, in the outbox.
        if self._publisher.kept:
            return []
        self._publisher.refuse_in_an_outage()
        room = await self._headroom.room_for(self._batch_size, len(self._claimed))
        if not room:
            self.drained.clear()
            return []
        claimed = await self._store.claim(room, self._partitions.tokens)
        self._headroom.claimed(len(claimed))
        self._metrics.batch_size.set(len(claimed))
        if claimed:
            self.drained.clear()
        elif not self.drained.is_set() and not await self._store.anything_left():
            self.drained.set()
        return claimed

    def _wait_out(self, outage: Exception) -> float:
        self.drained.clear()
        self._failures_in_a_row += 1
        self._metrics.relay_errors[_dependency(outage)].inc()
        if self._failures_in_a_row == 1:
            log.warning("outbox_relay_waits", dependency=_dependency(outage), error=str(outage))
        return backoff_seconds(self._failures_in_a_row)

    def _note_recovery(self) -> None:
        if self._failures_in_a_row:
            log.info("outbox_relay_works_again", failedPolls=self._failures_in_a_row)
            self._failures_in_a_row = 0


async def _nothing() -> list[OutboxEvent]:
    return []


def _dependency(outage: Exception) -> str:
    return "postgres" if isinstance(outage, DatabaseUnavailable) else "redis"
