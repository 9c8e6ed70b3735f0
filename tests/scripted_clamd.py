"""A server that speaks clamd's INSTREAM as clamd does, and worse when a test tells it to.

It knows one signature: the test file of EICAR, which is harmless, and nowhere in one piece in these files.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

EICAR = b"".join((rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$", b"EICAR-STANDARD-", b"ANTIVIRUS-TEST-FILE!", b"$H+H*"))
SIGNATURE = "Win.Test.EICAR_HDB-1"


class Fault(Enum):
    HANG = "take the document, never answer"
    HANG_AT_ONCE = "take nothing"
    DIE_MIDWAY = "take some of the document, and hang up"
    RESET_MIDWAY = "take some of the document, and reset the connection"
    DIE_AT_THE_END = "take the document, and hang up"
    HALF_AN_ANSWER = "hang up in the middle of an OK"


HALF_OK = b"stream: OK"
REPLIES = {Fault.DIE_AT_THE_END: b"", Fault.HALF_AN_ANSWER: HALF_OK}


@dataclass
class ScriptedClamd:
    """Listens on loopback, or at a path. `most`: StreamMaxLength."""

    path: Path | None = None
    most: int = 26_214_400
    reply: bytes | Fault | None = None
    scanned: list[int] = field(default_factory=list)
    connections: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._released = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        if self.path is not None:
            self._server = await asyncio.start_unix_server(self._serve, self.path)
            self.address = str(self.path)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._released.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.connections += 1
        self.arrived.set()
        try:
            writer.write(await self._answer(reader, writer))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        if self.reply is Fault.HANG_AT_ONCE:
            await self._released.wait()
        command = await reader.readuntil(b"\0")
        if command != b"zINSTREAM\0":
            return b"UNKNOWN COMMAND\0"
        if self.reply in {Fault.DIE_MIDWAY, Fault.RESET_MIDWAY}:
            await reader.readexactly(1000)
            if self.reply is Fault.RESET_MIDWAY:
                writer.transport.abort()
            return b""
        document = await self._document(reader)
        if document is None:
            return b"INSTREAM size limit exceeded. ERROR\0"
        self.scanned.append(len(document))
        return await self._verdict(document)

    async def _document(self, reader: asyncio.StreamReader) -> bytes | None:
        document = bytearray()
        while size := struct.unpack(">I", await reader.readexactly(4))[0]:
            if len(document) + size > self.most:
                return None
            document += await reader.readexactly(size)
        return bytes(document)

    async def _verdict(self, document: bytes) -> bytes:
        if self.reply is Fault.HANG:
            await self._released.wait()
        if isinstance(self.reply, bytes):
            return self.reply
        if self.reply is not None:
            return REPLIES[self.reply]
        return f"stream: {SIGNATURE} FOUND\0".encode() if EICAR in document else b"stream: OK\0"
