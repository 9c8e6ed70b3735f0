"""Hears from the Sentinels that a master is about to be replaced, so that nothing is given to it to forget.

A planned failover promotes a replica and leaves the old master in service for ten seconds more; what that accepts
meanwhile is lost. The Sentinel in charge says what it is about to do, a tenth of a second before it does.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

import hiredis
import structlog

from worker_runtime.redis.wire import UNREACHABLE, RedisUnavailable, Wire, ask_any, connect, sentence

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_runtime.redis.address import RedisAddress, Server

log = structlog.get_logger()

# `slave <its address> @ <name> <host> <port of the master>`, from the Sentinel in charge.
PROMOTING = b"+failover-state-send-slaveof-noone"
# `<name> <host> <port of the old master> <host> <port of the new one>`, from each Sentinel when it is over.
SWITCHED = b"+switch-master"
INTERESTS = (("SUBSCRIBE", PROMOTING), ("SUBSCRIBE", SWITCHED))
# A master that is replaced calls itself one for ten seconds more, and other Sentinels may still name it. If the change
# comes to nothing, this is how long we stay away for it.
REPLACED_FOR_SECONDS = 12.0
# For an answer, and between a lost subscription and the next.
PATIENCE_SECONDS = 1.0
PING_EVERY_SECONDS = 5.0


class Sentinels:
    """What the Sentinels of one master say: where it is, when asked; and, unasked, that it is being replaced.

    `on_replaced` is called for a master that is being, or has been, replaced; often twice. For some seconds it is not
    what `find_master` returns. A Sentinel that cannot be heard is listened to again later, and is no error of ours.
    """

    def __init__(self, where: RedisAddress, on_replaced: Callable[[Server], None]) -> None:
        self._where = where
        self._asked = deque(where.sentinels)
        self._on_replaced = on_replaced
        self._replaced: Server | None = None
        self._replaced_until = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def find_master(self, timeout_seconds: float) -> Server:
        """Ask one after another, beginning with another one each time. Raises `RedisUnavailable`."""
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._where.master)
        _, (host, port) = await ask_any(self._asked, *question, timeout_seconds=timeout_seconds)
        server = self._where.server.at(host, port)
        if server == self._replaced and time.monotonic() < self._replaced_until:
            raise RedisUnavailable(f"{server} is being replaced by another master")
        return server

    def open(self) -> None:
        """Start listening and return."""
        self._tasks = [asyncio.create_task(self._listen(one), name=f"sentinel {one}") for one in self._where.sentinels]

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
            wire, _ = await connect(sentinel, *INTERESTS, protocol=lambda: Subscription(self._note))
        try:
            while not (await asyncio.wait({wire.lost}, timeout=PING_EVERY_SECONDS))[0]:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await wire.send(("PING",))
        finally:
            wire.abort()

    def _note(self, channel: bytes, message: bytes) -> None:
        name, host, port, *_ = message.partition(b"@ ")[2].split() if channel == PROMOTING else message.split()
        if name == self._where.master.encode():
            self._replaced = self._where.server.at(host, port)
            self._replaced_until = time.monotonic() + REPLACED_FOR_SECONDS
            self._on_replaced(self._replaced)


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
