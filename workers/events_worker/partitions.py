"""Which partitions of the aggregates this process relays: leases, kept while it lives and shared out fairly."""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import TYPE_CHECKING

import structlog

from worker_runtime.loops import Heartbeat
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from events_worker.store import PartitionStore, Share
    from worker_runtime.loops import StopSignal
    from worker_runtime.metrics import OutboxMetrics

log = structlog.get_logger()

LEASE_SECONDS = 15.0
# A joiner is served by the others' next round, and then takes what they released with its own: seconds in all.
EVERY_SECONDS = 2.0


class Partitions:
    """Renews the leases, gives up what is beyond a fair share, and takes over from relays that died.

    What it says is a belief: a claim names the tokens, and the database knows better.
    """

    name = "outbox-partitions"

    def __init__(
        self,
        store: PartitionStore,
        metrics: OutboxMetrics,
        *,
        hinted: asyncio.Event,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self.heartbeat = Heartbeat()
        self.tokens: Mapping[int, int] = MappingProxyType({})
        # Set when partitions have become ours: their last owner may have left something behind.
        self.taken = asyncio.Event()
        # Tells the relay to look at once.
        self._hinted = hinted
        self._store = store
        self._metrics = metrics
        self._every_seconds = every_seconds

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`. At the end the partitions are free for others at once."""
        while not stop.requested.is_set():
            await self.heartbeat.while_waiting(self.balance())
            await self.heartbeat.while_waiting(stop.sleep(self._every_seconds))
        await self.heartbeat.while_waiting(self._leave())

    async def balance(self) -> None:
        """Do one round."""
        try:
            share = await self._store.balance(self.tokens)
        except DatabaseUnavailable as outage:
            # The relay polls the same server far more often and is the one to say so.
            log.debug("outbox_partitions_wait", error=str(outage))
            return
        self._note(share)

    def _note(self, share: Share) -> None:
        if share.taken or share.tokens.keys() != self.tokens.keys():
            log.info("outbox_partitions", owned=sorted(share.tokens), taken=sorted(share.taken))
        self.tokens = share.tokens
        self._metrics.partitions.set(len(share.tokens))
        if share.taken:
            self._metrics.takeovers.inc(len(share.taken))
            self.taken.set()
            self._hinted.set()

    async def _leave(self) -> None:
        held, self.tokens = self.tokens, MappingProxyType({})
        self._metrics.partitions.set(0)
        try:
            await self._store.leave(held)
        except DatabaseUnavailable as outage:
            log.warning("outbox_partitions_not_released", seconds=LEASE_SECONDS, error=str(outage))
