"""A Redis between a client and Redis that does what networks do: it counts the commands, and cuts or delays."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_BYTES = 65_536
# Seconds on, seconds to wait: closed with nothing to wait for, a socket says "reset by peer".
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class When(Enum):
    """Where a connection breaks, as seen from one command."""

    BEFORE = "Redis never saw the command"
    AFTER = "Redis ran it, its answer is lost"
    WITHIN = "Redis ran it, half of its answer arrives"


class Command(NamedTuple):
    """What passes: the how manyth over all connections (from 1), its name and its first argument."""

    number: int
    name: str
    argument: str


# Whether, and where, the connection breaks at a command; asked once for each.
Cuts = Callable[[Command], When | None]


class FaultProxy:
    """Listens on loopback and passes on to a Redis there, in the event loop of its test.

    `answer_delay` is how many seconds late each answer comes; none overtakes another.
    """

    def __init__(self, redis_url: str, *, cuts: Cuts = lambda _: None, answer_delay: float = 0.0) -> None:
        self._redis = urlsplit(redis_url)
        self._cuts = cuts
        self._links: dict[Link, asyncio.Task[None]] = {}
        self.answer_delay = answer_delay
        self.port = 0
        self.commands: list[Command] = []
        # Those at which a connection broke.
        self.victims: list[Command] = []

    @property
    def url(self) -> str:
        """The address of Redis with our port for its own."""
        return self._redis._replace(netloc=f"{self._redis.netloc.rpartition(':')[0]}:{self.port}").geturl()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        while self._links:
            link, task = self._links.popitem()
            link.reset()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def reset_all(self) -> None:
        """Cut every connection now."""
        for link in list(self._links):
            link.reset()

    def note(self, frame: bytes) -> When | None:
        """Count a command, and say where the connection breaks at it."""
        command = Command(len(self.commands) + 1, *first_words(frame))
        self.commands.append(command)
        if place := self._cuts(command):
            self.victims.append(command)
        return place

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            ours = await asyncio.open_connection(self._redis.hostname, self._redis.port)
        except OSError:
            reset(writer)
            return
        link = Link(self, (reader, writer), ours)
        self._links[link] = asyncio.create_task(link.run())
        self._links[link].add_done_callback(lambda _: self._links.pop(link, None))


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """One client's connection, and one to Redis on its behalf."""

    def __init__(self, proxy: FaultProxy, client: Stream, redis: Stream) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._from_redis, self._to_redis = redis
        self._unanswered: deque[When | None] = deque()
        self._all_answered = asyncio.Event()

    async def run(self) -> None:
        ways = [asyncio.create_task(way) for way in (self._pass_commands(), self._pass_answers())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.reset()
            for way in ways:
                way.cancel()
            for result in await asyncio.gather(*ways, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, OSError):
                    raise result

    def reset(self) -> None:
        reset(self._to_client)
        reset(self._to_redis)

    async def _pass_commands(self) -> None:
        buffer = b""
        while data := await self._from_client.read(READ_BYTES):
            buffer += data
            for frame in frames(buffer):
                buffer = buffer[len(frame) :]
                place = self._proxy.note(frame)
                if place is When.BEFORE:
                    await self._let_earlier_answers_pass()
                    return
                self._unanswered.append(place)
                self._to_redis.write(frame)

    async def _let_earlier_answers_pass(self) -> None:
        while self._unanswered:
            self._all_answered.clear()
            await self._all_answered.wait()

    async def _pass_answers(self) -> None:
        buffer = b""
        while data := await self._from_redis.read(READ_BYTES):
            buffer += data
            for frame in frames(buffer):
                buffer = buffer[len(frame) :]
                place = self._unanswered.popleft()
                if place is When.WITHIN:
                    self._to_client.write(frame[: len(frame) // 2])
                if place is not None:
                    return
                self._deliver(frame)
                if not self._unanswered:
                    self._all_answered.set()

    def _deliver(self, frame: bytes) -> None:
        if self._proxy.answer_delay:
            loop = asyncio.get_running_loop()
            loop.call_later(self._proxy.answer_delay, self._to_client.write, frame)
        else:
            self._to_client.write(frame)


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection at once, as a firewall or a dying host does."""
    endpoint = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


def frames(buffer: bytes) -> Iterator[bytes]:
    """Split off the whole commands or answers at the beginning of what has arrived."""
    start = 0
    while (end := frame_end(buffer, start)) > 0:
        yield buffer[start:end]
        start = end


def frame_end(data: bytes, start: int) -> int:
    """Return where the value of the Redis protocol that begins at `start` ends; -1 when some of it is to come."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return -1
    kind, end = data[start : start + 1], line_end + 2
    length = int(data[start + 1 : line_end]) if kind in b"$*" else -1
    if kind == b"$" and length >= 0:
        end += length + 2
        return end if end <= len(data) else -1
    for _ in range(length if kind == b"*" else 0):
        if (end := frame_end(data, end)) < 0:
            return -1
    return end


def first_words(command: bytes) -> tuple[str, str]:
    """Read the name and the first argument out of a command: `*3\\r\\n$3\\r\\nSET\\r\\n$3\\r\\nkey\\r\\n...`."""
    parts = command.split(b"\r\n", 5)
    return parts[2].decode(), parts[4].decode() if len(parts) > 5 else ""
