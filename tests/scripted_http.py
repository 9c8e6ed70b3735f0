"""An HTTP receiver that does what a test tells it: any answer, a hang or a hang-up at any stage; it keeps what came.

    async with ScriptedHttp() as server:
        server.will(answer(500), HANG)      # the first request, the second; then it answers 200 again
        server.always(CLOSE)

It speaks as much HTTP/1.1 as it takes to be asked, so that it can also speak less.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl


class Action(Enum):
    HANG = "read the request, never answer"
    CLOSE = "read the request, close the connection instead of answering"
    DRIP = "answer 200 and send its body byte by byte, for ever"
    DRIP_HEAD = "send a header byte by byte, for ever"
    HANG_IN_BODY = "answer 200, send half of the body and no more"
    BREAK_OFF = "answer 200, send half of the body and close the connection"
    ENDLESS = "answer 200 with a body that never ends, as fast as it is read"
    GARBLE = "answer what is not HTTP"
    ANSWER_AND_CLOSE = "answer 200 as if the connection would be kept, and close it"


HANG = Action.HANG
CLOSE = Action.CLOSE
DRIP = Action.DRIP
DRIP_HEAD = Action.DRIP_HEAD
HANG_IN_BODY = Action.HANG_IN_BODY
BREAK_OFF = Action.BREAK_OFF
ENDLESS = Action.ENDLESS
GARBLE = Action.GARBLE
ANSWER_AND_CLOSE = Action.ANSWER_AND_CLOSE


def answer(status: int = 200, body: bytes = b"ok", **headers: str) -> bytes:
    """Write an answer; in a header's name `_` stands for `-`."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


AT_ONCE = {
    Action.DRIP: b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
    Action.DRIP_HEAD: b"HTTP/1.1 200 OK\r\nX-Slow: ",
    Action.HANG_IN_BODY: b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
    Action.BREAK_OFF: b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
    Action.ENDLESS: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    Action.GARBLE: b"220 mail.example.com ESMTP\r\n\r\n",
    Action.ANSWER_AND_CLOSE: answer(),
}


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int
    at: float


@dataclass
class ScriptedHttp:
    """Listens on a loopback address, with TLS if it is given a context."""

    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    name: str = ""
    silent: bool = False  # Accept a connection, and do nothing: not even a TLS handshake.
    requests: list[Seen] = field(default_factory=list)
    connections: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._script: deque[bytes | Action] = deque()
        self._default: bytes | Action = answer()
        self._tasks: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=None if self.silent else self.tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._released.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{self.name or self.host}:{self.port}/hook"

    def will(self, *steps: bytes | Action) -> None:
        self._script.extend(steps)

    def always(self, step: bytes | Action) -> None:
        self._default = step

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        try:
            if self.silent:
                await self._released.wait()
            while await self._exchange(reader, writer, number):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append(Seen(head[0], headers, body, number, asyncio.get_running_loop().time()))
        self.arrived.set()
        return await self._perform(self._script.popleft() if self._script else self._default, writer)

    async def _perform(self, step: bytes | Action, writer: asyncio.StreamWriter) -> bool:
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
            return True
        if step in AT_ONCE:
            writer.write(AT_ONCE[step])
            await writer.drain()
        match step:
            case Action.HANG | Action.HANG_IN_BODY:
                await self._released.wait()
            case Action.DRIP | Action.DRIP_HEAD:
                await self._drip(writer)
            case Action.ENDLESS:
                await self._flood(writer)
        return False

    async def _flood(self, writer: asyncio.StreamWriter) -> None:
        while not self._released.is_set():
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()

    async def _drip(self, writer: asyncio.StreamWriter) -> None:
        while not self._released.is_set():
            writer.write(b"x")
            await writer.drain()
            # The pace is the point: a limit on the pause between two bytes would never be met.
            await asyncio.sleep(0.02)
