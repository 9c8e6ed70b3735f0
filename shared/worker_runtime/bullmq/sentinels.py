"""Hears from the Sentinels that a master is about to be replaced, so that nothing is given to it to forget.

A planned failover promotes a replica and leaves the old master in service for ten seconds more; what that accepts
meanwhile is lost. The Sentinel in charge says what it is about to do, a tenth of a second before it does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import hiredis
import structlog

from worker_runtime.bullmq.wire import UNREACHABLE, Wire, connect, sentence, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from worker_runtime.bullmq.address import Server

log = structlog.get_logger()

# `slave <its address> @ <name> <host> <port of the master>`, from the Sentinel in charge.
PROMOTING = b"+failover-state-send-slaveof-noone"
# `<name> <host> <port of the old master> <host> <port of the new one>`, from each Sentinel when it is over.
SWITCHED = b"+switch-master"
# For an answer, and between a lost subscription and the next.
PATIENCE_SECONDS = 1.0
PING_EVERY_SECONDS = 5.0


class SentinelWatch:
    """Subscriptions to all Sentinels of a master, each repaired by itself; the loss of one is no error of ours.

    `on_replaced` is called with the host and port of a master that is being, or has been, replaced; often twice.
    """

    def __init__(self, sentinels: Iterable[Server], master: str, on_replaced: Callable[[bytes, bytes], None]) -> None:
        self._sentinels = tuple(sentinels)
        self._master = master.encode()
        self._on_replaced = on_replaced
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Start listening and return."""
        self._tasks = [asyncio.create_task(self._listen(one), name=f"sentinel {one}") for one in self._sentinels]

    async def close(self) -> None:
        """Stop listening. May be called twice."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, sentinel: Server) -> None:
        said = ""
        while True:
            try:
                await self._hear_from(sentinel)
                said = ""
            except UNREACHABLE as error:
                if sentence(error) != said:
                    said = sentence(error)
                    log.warning("sentinel_not_heard", sentinel=str(sentinel), error=said)
            await asyncio.sleep(PATIENCE_SECONDS)

    async def _hear_from(self, sentinel: Server) -> None:
        """Listen until the connection is lost."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            wire = await connect(sentinel, lambda: Subscription(self._note))
        try:
            await self._ask(wire, "SUBSCRIBE", PROMOTING)
            await self._ask(wire, "SUBSCRIBE", SWITCHED)
            while not (await asyncio.wait({wire.lost}, timeout=PING_EVERY_SECONDS))[0]:
                await self._ask(wire, "PING")
        finally:
            wire.abort()

    async def _ask(self, wire: Wire, *command: bytes | str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            value_of(await wire.send(command))

    def _note(self, channel: bytes, message: bytes) -> None:
        name, host, port, *_ = message.partition(b"@ ")[2].split() if channel == PROMOTING else message.split()
        if name == self._master:
            self._on_replaced(host, port)


class Subscription(Wire):
    """A wire on which the server also says what nobody asked for."""

    def __init__(self, hear: Callable[[bytes, bytes], None]) -> None:
        super().__init__()
        self._hear = hear

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._reader.feed(data)
        try:
            while (said := self._reader.gets()) is not False:
                if isinstance(said, list) and said[0] == b"message":
                    self._hear(*said[1:])
                elif not (answer := self._awaited.popleft()).done():
                    answer.set_result(said)
        except (hiredis.ProtocolError, LookupError, ValueError) as error:
            self.abort(f"not what a Sentinel says: {error}")
