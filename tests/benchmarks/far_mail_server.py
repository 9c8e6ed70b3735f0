"""A mail server that takes everything, in a process of its own: `far_mail_server.py [--delay SECONDS] [--pipelining]`.

It writes its port as its first line. Each batch of replies comes `--delay` later, as from a server that is far away.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import cast

import uvloop


class Sink(asyncio.Protocol):
    """One connection."""

    def __init__(self, delay: float, greeting: bytes) -> None:
        self._delay = delay
        self._greeting = greeting
        self._heard = b""
        self._in_message = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name.
        self._say([b"220 sink"])

    def data_received(self, data: bytes) -> None:
        self._heard += data
        replies = []
        while (reply := self._next()) is not None:
            replies.append(reply)
        if replies:
            self._say(replies)

    def _say(self, replies: list[bytes]) -> None:
        said = b"".join(reply + b"\r\n" for reply in replies)
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, said)
        else:
            self._transport.write(said)

    def _next(self) -> bytes | None:
        line, end, rest = self._heard.partition(b"\r\n.\r\n" if self._in_message else b"\r\n")
        if not end:
            return None
        self._heard = rest
        if self._in_message:
            self._in_message = False
            return b"250 2.0.0 Ok: queued as 4F2A"
        return self._answer(line[:4].upper())

    def _answer(self, verb: bytes) -> bytes:
        self._in_message = verb == b"DATA"
        return {b"EHLO": self._greeting, b"DATA": b"354 go on", b"QUIT": b"221 bye"}.get(verb, b"250 2.1.0 ok")


async def serve(delay: float, *, pipelining: bool) -> None:
    greeting = b"250-sink\r\n250-SIZE 50000000\r\n250 " + (b"PIPELINING" if pipelining else b"8BITMIME")
    server = await asyncio.get_running_loop().create_server(lambda: Sink(delay, greeting), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--pipelining", action="store_true")
    asked = parser.parse_args()
    uvloop.run(serve(asked.delay, pipelining=asked.pipelining))
