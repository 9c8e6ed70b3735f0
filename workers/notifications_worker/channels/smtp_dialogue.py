"""Commands and replies on an open connection, several of each in one go (RFC 2920): aiosmtplib takes one at a time.

It does the greeting, TLS and the login; then this takes the connection over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

__all__ = ["Answer", "Dialogue", "NotSmtp"]

LONGEST_LINE = 8192
LONGEST_REPLY = 4 * LONGEST_LINE
_CODE_DIGITS = 3


class Answer(NamedTuple):
    """One reply; `text` has a line for each of its lines, and what is not UTF-8 as lone surrogates."""

    code: int
    text: str


class NotSmtp(Exception):
    """The server said something that is no reply, or a reply to nothing."""


class Dialogue(asyncio.Protocol):
    """One side of a conversation. A reply nobody is owed makes it unusable: the next would be taken for another's."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._line = bytearray()
        self._lines: list[bytes] = []
        self._answers: deque[Answer] = deque()
        self._owed = 0
        self._broken: Exception | None = None
        self._news = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        transport.set_protocol(self)

    @property
    def usable(self) -> bool:
        """Whether the connection is there and in step, as far as this side knows."""
        return self._broken is None and not self._transport.is_closing()

    @property
    def remote(self) -> str | None:
        """The server's address and port."""
        peer = self._transport.get_extra_info("peername")
        return f"{peer[0]}:{peer[1]}" if peer else None

    def ask(self, *commands: bytes) -> None:
        """Send commands, each of which the server owes a reply. Raises OSError when the connection is gone."""
        self._owed += len(commands)
        self._write(b"".join(command + b"\r\n" for command in commands))

    async def write(self, block: bytes, seconds: float) -> None:
        """Send part of a message, waiting while the server does not keep up. Raises OSError, also for `seconds`."""
        self._write(block)
        async with asyncio.timeout(seconds):
            await self._may_write.wait()

    def _write(self, data: bytes) -> None:
        if not self.usable:
            raise ConnectionResetError("Connection lost")
        self._transport.write(data)

    def expect(self) -> None:
        """Note that the server owes one more reply."""
        self._owed += 1

    @property
    def answered(self) -> bool:
        """Whether a reply is there to be read."""
        return bool(self._answers)

    async def answer(self, seconds: float) -> Answer:
        """Return the next reply. Raises NotSmtp and OSError, which a TimeoutError is."""
        async with asyncio.timeout(seconds):
            while not self._answers:
                if self._broken:
                    raise self._broken
                self._news.clear()
                await self._news.wait()
        return self._answers.popleft()

    def abort(self) -> None:
        """Close without a word; harmless when closed already."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._line += data
        *lines, rest = self._line.split(b"\n")
        for line in lines:
            self._hear(bytes(line))
        self._line = rest
        if len(rest) > LONGEST_LINE:
            self._break(NotSmtp("a line without an end"))
        self._news.set()

    def _hear(self, line: bytes) -> None:
        self._lines.append(line)
        if not line[:_CODE_DIGITS].isdigit() or sum(map(len, self._lines)) > LONGEST_REPLY:
            self._break(NotSmtp("not a reply"))
        elif line[_CODE_DIGITS : _CODE_DIGITS + 1] != b"-":
            self._complete(int(line[:_CODE_DIGITS]))

    def _complete(self, code: int) -> None:
        text = b"\n".join(line[_CODE_DIGITS + 1 :].strip() for line in self._lines)
        self._lines.clear()
        if self._owed == 0:
            self._break(NotSmtp("a reply to nothing"))
            return
        self._owed -= 1
        if self._broken is None:
            self._answers.append(Answer(code, text.decode("utf-8", "surrogateescape")))

    def _break(self, error: Exception) -> None:
        self._broken = self._broken or error
        self._news.set()
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._break(ConnectionResetError(f"Connection lost ({type(exc).__name__})" if exc else "Connection lost"))

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._may_write.set()
