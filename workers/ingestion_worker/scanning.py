"""Every document passes ClamAV's daemon before anything reads it, where CLAMAV_ADDRESS names one.

    async with opened_scanner(settings) as scanner:
        await scanner.scan(fetched.path)

It closes on failure: without a clear "OK" no document passes, whatever the reason. clamd itself calls clean what it did
not look into because of its limits (MaxFileSize, MaxScanSize...), unless its clamd.conf says `AlertExceedsMax yes`.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from io import FileIO
from typing import TYPE_CHECKING, Any, Protocol

from ingestion_worker.fetching.failed import FetchFailed
from ingestion_worker.fetching.steps import finished
from ingestion_worker.problem import DocumentError, Problem
from worker_runtime.outcome import Defer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Executor
    from pathlib import Path

    from ingestion_worker.fetching.settings import FetchingSettings

__all__ = ["ClamAv", "NoScanner", "Scanner", "ScannerUnavailable", "opened_scanner"]

PAUSE_SECONDS = 10.0
CONNECT_SECONDS = 10.0
THREADS = 4
CHUNK_BYTES = 262_144
LONGEST_REPLY = 4096
# A command that begins with z ends with NUL, and so does its reply.
COMMAND = b"zINSTREAM\0"
END = struct.pack(">I", 0)
CLEAN = "stream: OK"
OVER_LIMIT = "INSTREAM size limit exceeded"
# What AlertExceedsMax makes of a document that was too much for one of the settings of clamd.conf.
LIMIT = "Heuristics.Limits.Exceeded."
_FOUND = re.compile(r"stream: (.{1,512}) FOUND")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
LONGEST_SIGNATURE = 200


class ScannerUnavailable(FetchFailed):
    """The scanner did not say what it thinks of the document, which therefore waits."""

    def __init__(self, reason: str) -> None:
        super().__init__(Defer("SCANNER_UNAVAILABLE", f"ClamAV {reason}", PAUSE_SECONDS))


class Scanner(Protocol):
    """Looks for malware."""

    async def scan(self, path: Path) -> None:
        """Return when the file is clean. Does not block the event loop.

        Raises `DocumentError` (INFECTED, TOO_LARGE), or ScannerUnavailable.
        """


class NoScanner:
    """See `Scanner`. Finds everything clean: no scanner is configured."""

    async def scan(self, path: Path) -> None:
        """See `Scanner`."""


class ClamAv:
    """See `Scanner`. Speaks to clamd at `host:port` or at the path of a socket; one connection a document."""

    def __init__(self, address: str, seconds: float, pool: Executor) -> None:
        self._address = address
        self._seconds = seconds
        self._pool = pool

    async def scan(self, path: Path) -> None:
        """See `Scanner`."""
        try:
            async with asyncio.timeout(self._seconds):
                reply = await self._answer(path)
        except TimeoutError as error:
            raise ScannerUnavailable(f"said nothing within {self._seconds:g} s") from error
        _judge(reply)

    async def _answer(self, path: Path) -> bytes:
        with await self._connected() as connection:
            try:
                await self._send(connection, path)
                return await _reply(connection)
            except ConnectionError as error:
                raise ScannerUnavailable("closed the connection instead of answering") from error

    async def _connected(self) -> socket.socket:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await _connection(self._address)
        except OSError as error:  # A TimeoutError is one too.
            raise ScannerUnavailable("could not be connected to; CLAMAV_ADDRESS says where it is") from error

    async def _send(self, connection: socket.socket, path: Path) -> None:
        loop = asyncio.get_running_loop()
        file = _Opened(path)
        try:
            await loop.sock_sendall(connection, COMMAND)
            while chunk := await finished(self._pool, file.read):
                await loop.sock_sendall(connection, struct.pack(">I", len(chunk)) + chunk)
            await loop.sock_sendall(connection, END)
        except ConnectionError:
            return  # It may have said all that it will, and hung up: what it said counts.
        finally:
            file.close()


class _Opened:
    """A file that is opened by its first read, so that one who is cancelled meanwhile can still close it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None

    def read(self) -> bytes:
        if self._file is None:
            self._file = FileIO(self._path)
        return self._file.read(CHUNK_BYTES)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


async def _connection(address: str) -> socket.socket:
    if address.startswith("/"):
        return await _connected_to(socket.AF_UNIX, address)
    host, _, port = address.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    for family, _, _, _, where in found[:-1]:
        with suppress(OSError):
            return await _connected_to(family, where)
    return await _connected_to(found[-1][0], found[-1][4])


async def _connected_to(family: int, where: tuple[Any, ...] | str) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.setblocking(False)  # noqa: FBT003  its only way to say it
    try:
        await asyncio.get_running_loop().sock_connect(connection, where)
    except BaseException:
        connection.close()
        raise
    return connection


async def _reply(connection: socket.socket) -> bytes:
    """Return what was said up to its NUL, or as much of it as came."""
    said = b""
    while b"\0" not in said and len(said) < LONGEST_REPLY:
        piece = await asyncio.get_running_loop().sock_recv(connection, LONGEST_REPLY)
        if not piece:
            break
        said += piece
    return said


def _judge(reply: bytes) -> None:
    text, end, _ = reply.partition(b"\0")
    said = text.decode("utf-8", "replace").strip()
    if not end:
        raise ScannerUnavailable("closed the connection instead of answering")
    if found := _FOUND.fullmatch(said):
        raise _found(_UNPRINTABLE.sub("?", found[1])[:LONGEST_SIGNATURE])
    if said.startswith(OVER_LIMIT):
        sentence = "the document is larger than ClamAV takes; StreamMaxLength in clamd.conf is to be raised to"
        raise DocumentError(Problem.TOO_LARGE, f"{sentence} DOCUMENT_MAX_BYTES, or that lowered")
    if said != CLEAN:
        raise ScannerUnavailable("answered with neither OK nor FOUND")


def _found(name: str) -> DocumentError:
    if name.startswith(LIMIT):
        limit = name.removeprefix(LIMIT)
        return DocumentError(Problem.TOO_LARGE, f"ClamAV could not look at all of it: {limit} in clamd.conf forbids it")
    return DocumentError(Problem.INFECTED, f"ClamAV found {name} in the document")


@asynccontextmanager
async def opened_scanner(settings: FetchingSettings) -> AsyncIterator[Scanner]:
    """Open the configured scanner; nothing is connected to before the first document."""
    if settings.clamav_address is None:
        yield NoScanner()
        return
    pool = ThreadPoolExecutor(THREADS, "scanning")
    try:
        yield ClamAv(settings.clamav_address, settings.clamav_timeout_ms / 1000, pool)
    finally:
        pool.shutdown(wait=False)
