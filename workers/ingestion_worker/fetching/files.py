"""Documents of a folder that the operator has opened for `file:` URLs, and of nowhere else."""

from __future__ import annotations

import errno
import os
import stat
import threading
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

from ingestion_worker.fetching.failed import FetchFailed
from ingestion_worker.fetching.names import NAMELESS, file_name
from ingestion_worker.fetching.source import Origin
from ingestion_worker.fetching.steps import finished
from worker_runtime.outcome import DeadLetter, Defer, Retry

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from pathlib import Path

    from ingestion_worker.fetching.landing import Landing

__all__ = ["Files"]

STEP_BYTES = 1_048_576
ROOT_PAUSE_SECONDS = 5.0
NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO that took the file's place is opened at once, and then refused.
_DOCUMENT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Files:
    """See `Source`. Without a `root` every URL is refused."""

    def __init__(self, root: Path | None, pool: Executor) -> None:
        self._root = root
        self._pool = pool

    async def fetch(self, url: str, landing: Landing) -> Origin:
        """See `Source`."""
        path = _path(url)
        if self._root is None:
            reason = "file: URLs are read only below DOCUMENTS_ROOT, which is not set"
            raise FetchFailed(DeadLetter("FETCH_REFUSED", reason))
        file = _Document(self._root, path)
        try:
            landing.expect(await finished(self._pool, file.open))
            while piece := await finished(self._pool, file.read):
                await landing.take(piece)
            await finished(self._pool, file.must_be_unchanged)
        finally:
            self._pool.submit(file.close)
        return Origin(file_name(os.fsdecode(path)) or NAMELESS)


class _Document:
    """A regular file below a folder, whatever is swapped for what meanwhile. Raises FetchFailed.

    Every method may block, and is called from threads; `close` may be called while another one hangs.
    """

    def __init__(self, root: Path, path: bytes) -> None:
        self._root = root
        self._path = path
        self._lock = threading.Lock()
        self._file = -1
        self._before: tuple[int, ...] = ()

    def open(self) -> int:
        """Return its size in bytes."""
        with self._lock:
            try:
                self._file = self._opened()
                found = os.fstat(self._file)
            except OSError as error:
                raise FetchFailed(_unreadable(error)) from error
            _must_be_regular(found)
            self._before = _version(found)
            return found.st_size

    def read(self) -> bytes:
        """Return the next piece, and nothing at the end."""
        with self._lock:
            try:
                return os.read(self._file, STEP_BYTES)
            except OSError as error:
                raise FetchFailed(_unreadable(error)) from error

    def must_be_unchanged(self) -> None:
        """Refuse what was written to while it was read: its parts may be of different files."""
        with self._lock:
            if _version(os.fstat(self._file)) != self._before:
                raise FetchFailed(Retry("FETCH_CHANGED", "the file was written to while it was read"))

    def close(self) -> None:
        """Close it, once whatever hangs has ended."""
        with self._lock:
            file, self._file = self._file, -1
            if file >= 0:
                os.close(file)

    def _opened(self) -> int:
        """Walk to the file from one folder to the next, none of which may be a symlink any more."""
        *folders, name = self._parts()
        at = self._root_folder()
        try:
            for folder in folders:
                above, at = at, os.open(folder, _FOLDER, dir_fd=at)
                os.close(above)
            # Looked at before it is opened, for to open a device may already do something.
            _must_be_regular(os.stat(name, dir_fd=at, follow_symlinks=False))
            return os.open(name, _DOCUMENT, dir_fd=at)
        finally:
            os.close(at)

    def _parts(self) -> list[bytes]:
        root, path = os.path.realpath(os.fsencode(self._root)), os.path.realpath(self._path)
        if path == root:
            raise FetchFailed(_NOT_A_FILE)
        start = root.rstrip(b"/") + b"/"
        if not path.startswith(start):
            reason = "the file is not below DOCUMENTS_ROOT, the only folder that file: URLs may point into"
            raise FetchFailed(DeadLetter("FETCH_REFUSED", reason))
        return path.removeprefix(start).split(b"/")

    def _root_folder(self) -> int:
        try:
            return os.open(os.path.realpath(self._root), _FOLDER)
        except OSError as error:
            reason = "the folder of DOCUMENTS_ROOT is not there, or may not be entered"
            raise FetchFailed(Defer("STORAGE_UNAVAILABLE", reason, ROOT_PAUSE_SECONDS)) from error


def _path(url: str) -> bytes:
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or parts.query or parts.fragment or not parts.path.startswith("/"):
        reason = "sourceUrl: a file: URL is like file:///folder/name, with ? and # written as %3F and %23"
        raise FetchFailed(DeadLetter("INVALID_PAYLOAD", reason))
    path = unquote_to_bytes(parts.path)
    if b"\0" in path:
        raise FetchFailed(DeadLetter("INVALID_PAYLOAD", "sourceUrl: no file's name holds a NUL"))
    return path


_NOT_A_FILE = DeadLetter("FETCH_REFUSED", "what the file: URL points at is not a regular file")


def _must_be_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise FetchFailed(_NOT_A_FILE)


def _version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _unreadable(error: OSError) -> Retry | DeadLetter:
    if error.errno in NOWHERE:
        return DeadLetter("DOCUMENT_MISSING", "there is no such file below DOCUMENTS_ROOT")
    if error.errno in FORBIDDEN:
        return DeadLetter("FETCH_REFUSED", "the worker's user may not read the file: allow it, then retry the job")
    reason = errno.errorcode.get(error.errno or 0, "an error without a number")
    return Retry("FETCH_INTERRUPTED", f"the file could not be read ({reason})")
