"""The file that a document arrives in: whole, within its limit and with its hash, or not there at all."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from ingestion_worker.document import SOURCE
from ingestion_worker.fetching.failed import FetchFailed, too_large
from ingestion_worker.fetching.steps import finished
from worker_runtime.outcome import Retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Executor
    from pathlib import Path

    from obstore import Bytes

__all__ = ["Landing", "landing"]

UNFINISHED = ".source.part"
# So much is collected for one step of a thread.
STEP_BYTES = 1_048_576
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Another document's end makes room.
FULL_FLOOR_SECONDS = 30.0


class Landing:
    """Takes a document in pieces. Every method raises `DocumentError` (TOO_LARGE), or FetchFailed for a full disk."""

    def __init__(self, folder: Path, most: int, pool: Executor) -> None:
        self.path = folder / SOURCE
        self.most = most
        self.size = 0
        self._unfinished = folder / UNFINISHED
        self._pool = pool
        self._digest = hashlib.sha256()
        self._file = -1
        self._held: list[bytes | Bytes] = []
        self._held_bytes = 0

    def expect(self, size: int | None) -> None:
        """Refuse a document that is said to be too large before any of it is there."""
        if size is not None and size > self.most:
            raise too_large(size, self.most)

    async def take(self, piece: bytes | Bytes) -> None:
        """Write the next piece, or keep it for the next write. No more than `most` bytes are ever in the folder."""
        self.expect(self.size + len(piece))
        self.size += len(piece)
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes >= STEP_BYTES:
            await self._write_held()

    async def landed(self) -> bytes:
        """Give the file its name and return its SHA-256."""
        await self._write_held()
        await self._step(self._finish)
        return self._digest.digest()

    async def begin(self) -> None:
        """Make the file."""
        await self._step(self._open)

    async def clear(self) -> None:
        """Leave nothing behind."""
        await finished(self._pool, self._discard)

    async def _write_held(self) -> None:
        pieces, self._held, self._held_bytes = self._held, [], 0
        await self._step(self._write, pieces)

    async def _step(self, step: Callable[..., None], *arguments: object) -> None:
        try:
            await finished(self._pool, step, *arguments)
        except OSError as error:
            raise FetchFailed(_no_room(error)) from error

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._unfinished, flags, 0o600)

    def _write(self, pieces: list[bytes | Bytes]) -> None:
        for piece in pieces:
            rest = memoryview(piece)
            self._digest.update(rest)
            while rest:
                rest = rest[os.write(self._file, rest) :]

    def _finish(self) -> None:
        self._close()
        self._unfinished.rename(self.path)

    def _discard(self) -> None:
        with suppress(OSError):
            self._close()
        for path in (self._unfinished, self.path):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


@asynccontextmanager
async def landing(folder: Path, most: int, pool: Executor) -> AsyncIterator[Landing]:
    """Open a file for a document in `folder`; when anything is raised, nothing of it is left there."""
    place = Landing(folder, most, pool)
    try:
        await place.begin()
        yield place
    except BaseException:
        await place.clear()
        raise


def _no_room(error: OSError) -> Retry:
    if error.errno in FULL:
        return Retry("DISK_FULL", "there is no room for the document where it is worked on", FULL_FLOOR_SECONDS)
    reason = errno.errorcode.get(error.errno or 0, "an error without a number")
    return Retry("DISK_FAILED", f"the document could not be written where it is worked on ({reason})")
