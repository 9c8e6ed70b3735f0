"""The folders in which documents are worked on: one for each job, gone after it, even if its worker was killed."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["FolderUnusable", "WorkingFolders", "opened_folders"]

LOCK = ".lock"
PRIVATE = 0o700


class FolderUnusable(Exception):
    """Nothing can be worked on there. The message names the folder and the reason."""


class WorkingFolders:
    """The folders of this worker, all within `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Path]:
        """Make a folder that only this user may enter; it goes with all that is in it."""
        folder = Path(tempfile.mkdtemp(prefix="document-", dir=self.root))
        try:
            yield folder
        finally:
            # A cancelled job waits for no disk; the thread goes on to the end.
            await asyncio.shield(asyncio.to_thread(remove, folder))


@contextmanager
def opened_folders(within: Path | None) -> Iterator[WorkingFolders]:
    """Open a root for this worker's folders; remove those of workers that are dead. Raises `FolderUnusable`."""
    shared = (within or Path(tempfile.gettempdir())).absolute() / f"intelliflow-documents-{os.geteuid()}"
    try:
        root, lock = claimed(shared)
    except OSError as error:
        raise FolderUnusable(f"{shared}: {error.strerror}") from error
    try:
        yield WorkingFolders(root)
    finally:
        remove(root)
        os.close(lock)


def claimed(shared: Path) -> tuple[Path, int]:
    """Return a new folder, and the lock that tells others that its owner is alive."""
    make_private(shared)
    # One worker at a time begins, so that nobody takes a new folder for a dead worker's before it is locked.
    turn = locked(shared / LOCK, fcntl.LOCK_EX)
    try:
        remove_leftovers(shared)
        root = Path(tempfile.mkdtemp(prefix="worker-", dir=shared))
        return root, locked(root / LOCK, fcntl.LOCK_EX)
    finally:
        os.close(turn)


def make_private(folder: Path) -> None:
    """Make a folder of this user's own, or make sure that it is one: anybody may make folders in /tmp."""
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(0, "others may use it too: remove it, or set DOCUMENT_WORK_DIR to another folder")


def locked(path: Path, how: int) -> int:
    """Return a descriptor that holds a lock on a file for as long as it is open. The kernel closes a dead owner's."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def remove_leftovers(shared: Path) -> None:
    """Remove the folders whose owners have ended."""
    for folder in shared.glob("worker-*"):
        with suppress(BlockingIOError):
            lock = locked(folder / LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(folder)
            os.close(lock)


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, whatever a child has forbidden there."""
    for place, folders, _ in os.walk(folder):
        for name in folders:
            inner = Path(place, name)
            if not inner.is_symlink():
                inner.chmod(PRIVATE)
    shutil.rmtree(folder, ignore_errors=True)
