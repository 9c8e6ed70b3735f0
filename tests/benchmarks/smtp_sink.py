"""A mail server that takes everything as fast as it can, or is out, and counts."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Self, cast

import uvloop

GREETING, GOODBYE = b"220 sink\r\n", b"221 2.0.0 bye\r\n"
OK, GO_ON, KEPT, OUT = b"250 2.0.0 ok\r\n", b"354 go on\r\n", b"250 2.0.0 kept\r\n", b"421 4.3.2 maintenance\r\n"
EXTENSIONS = b"250-sink\r\n250-PIPELINING\r\n250-SIZE 33554432\r\n250 ENHANCEDSTATUSCODES\r\n"
END = b"\r\n.\r\n"


class SmtpSink:
    """A server in a thread of its own. While it is `out`, it greets with 421."""

    def __init__(self) -> None:
        self.mails = 0
        self.connections = 0
        self.out = False
        # While it is out: how many there are at once, and the most there ever were since `forget`.
        self.open_while_out = self.most_while_out = 0
        self.port = 0
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> int:
        server: Any = await self._loop.create_server(lambda: _Conversation(self), "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        return port


class _Conversation(asyncio.Protocol):
    def __init__(self, sink: SmtpSink) -> None:
        self._sink = sink
        self._buffer = b""
        self._in_data = self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sink = self._sink
        sink.connections += 1
        if not sink.out:
            self._transport.write(GREETING)
            return
        self._counted = True
        sink.open_while_out += 1
        sink.most_while_out = max(sink.most_while_out, sink.open_while_out)
        # A server that is out takes its time to say so.
        asyncio.get_running_loop().call_later(0.05, self._refuse)

    def connection_lost(self, _: Exception | None) -> None:
        if self._counted:
            self._sink.open_while_out -= 1

    def _refuse(self) -> None:
        self._transport.write(OUT)
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        answers = []
        while (answer := self._next()) is not None:
            answers.append(answer)
        if answers:
            self._transport.write(b"".join(answers))
        if answers and answers[-1] is GOODBYE:
            self._transport.close()

    def _next(self) -> bytes | None:
        """Take one command, or a whole message, off the buffer and answer it."""
        taken, found, rest = self._buffer.partition(END if self._in_data else b"\r\n")
        if not found:
            return None
        self._buffer = rest
        if self._in_data:
            self._in_data = False
            self._sink.mails += 1
            return KEPT
        verb = taken[:4].upper()
        self._in_data = verb == b"DATA"
        return {b"EHLO": EXTENSIONS, b"DATA": GO_ON, b"QUIT": GOODBYE}.get(verb, OK)
