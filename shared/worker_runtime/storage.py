"""The object store: a folder, S3, Google's or Azure's, behind one address (`STORAGE_URL`).

A store's credentials are read as its provider's own tools read them (`AWS_ACCESS_KEY_ID`, a service account, a role of
the machine); the store is the operator's own, so the guard of `egress.py` has no say in it.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError, PreconditionError
from obstore.store import LocalStore, from_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from obstore import Bytes, GetOptions
    from obstore.store import ClientConfig, RetryConfig
    from obstore.store import ObjectStore as AnyStore

__all__ = [
    "ImpossibleKey",
    "NoSuchObject",
    "ObjectChanged",
    "ObjectStore",
    "ObjectTooLarge",
    "StorageError",
    "StorageUnavailable",
    "StoredObject",
    "storage_location",
]

SCHEMES = frozenset({"file", "s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss"})
LONGEST_KEY = 1024
SECONDS = 30.0
PUT_SECONDS = 120.0
READERS = 4
# Of a large object so much is asked for at a time: within the time limit of a request on a slow line, and little enough
# to be held for several objects at once.
PIECE_BYTES = 4_194_304
# Plain http is spoken only to an endpoint that the operator wrote so, such as a MinIO beside the worker.
_CLIENT: ClientConfig = {"connect_timeout": "5s", "timeout": "15s", "allow_http": True}
_RETRIES: RetryConfig = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}


T = TypeVar("T")


class StorageError(Exception):
    """An object was not read, or not written. The message holds neither the address of the store nor its own words."""


class ImpossibleKey(StorageError):
    """No object can have this key: it is empty, too long, absolute, or leads out of the store. Never again."""


class NoSuchObject(StorageError):
    """There is no object with this key. Never again, unless somebody puts it there."""


class ObjectTooLarge(StorageError):
    """The object is larger than it may be, and was not read. Never again."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"{size} bytes, and at most {most} are allowed")
        self.size = size


class ObjectChanged(StorageError):
    """Somebody replaced the object while it was read. At once again."""


class StorageUnavailable(StorageError):
    """The store could not be reached, did not answer in time or let us in. Later, or when somebody acts."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What the store says about an object: its bytes, and what changes with its content, if the store knows that."""

    size: int
    etag: str | None


def storage_location(value: str) -> str:
    """Return where a store is, as `STORAGE_URL` says it. Raises ValueError for what is neither a folder nor a store."""
    scheme = urlsplit(value).scheme
    if "://" not in value:
        return value
    if scheme not in SCHEMES:
        raise ValueError("neither a folder nor the URL of an object store such as s3://bucket/prefix")
    return value


class ObjectStore:
    """Reads and writes objects by their keys. Nothing is opened before the first of them is asked for.

    Every method raises StorageError, each kind of which says what to do.
    """

    def __init__(self, location: str) -> None:
        self.location = location.rstrip("/")
        self._folder = _folder_of(location)
        self._opened: AnyStore | None = None
        # Threads, for obstore's own way into asyncio aborts a process that ends soon after a read, one time in three:
        # its runtime lets go of Python's objects when Python is gone. And threads of its own, so that a store that
        # hangs leaves those alone that look up names.
        self._readers = ThreadPoolExecutor(READERS, "storage")

    def holds(self, url: str) -> bool:
        """Tell whether a URL is one of an object of this store."""
        start = f"{self.location}/"
        return "://" in start and url.startswith(start)

    def key_of(self, url: str) -> str:
        """Return the key of an object of this store by its URL. Raises ImpossibleKey for any other URL."""
        if not self.holds(url):
            raise ImpossibleKey("the URL is not one of an object under STORAGE_URL")
        return unquote(url.removeprefix(f"{self.location}/"))

    async def read(self, key: str, most: int, *, seconds: float = SECONDS) -> bytes:
        """Return an object of at most that many bytes."""
        return await self._in_thread(seconds, self._read, key, most)

    async def fetch_to(
        self, key: str, take: Callable[[Bytes], Awaitable[None]], most: int, *, seconds: float = SECONDS
    ) -> StoredObject:
        """Hand over an object of at most that many bytes, piece by piece and in order.

        `seconds` limits each piece, of which one is held at a time; what `take` raises is passed on. A cancelled call
        waits for nobody: what its thread still reads is dropped. Raises ObjectChanged when the pieces are not of one.
        """
        found = await self._in_thread(seconds, self._described, key)
        if found.size > most:
            raise ObjectTooLarge(found.size, most)
        for start, end in _pieces(found.size):
            await take(await self._in_thread(seconds, self._read_piece, key, found.etag, (start, end)))
        return found

    async def put(self, key: str, content: Path | bytes, *, seconds: float = PUT_SECONDS) -> None:
        """Write an object, the content of a file perhaps; others see all of it or nothing.

        A call that was cancelled, or came to its time limit, may still have that effect a moment later.
        """
        await self._in_thread(seconds, self._put, key, content)

    async def remove(self, key: str, *, seconds: float = SECONDS) -> None:
        """Have no object with that key, whether or not there was one."""
        await self._in_thread(seconds, self._remove, key)

    def close(self) -> None:
        """Start no more reading; what is being read is waited for by nobody."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, seconds: float, call: Callable[..., T], key: str, *more: object) -> T:
        _must_be_possible(key)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(self._readers, call, key, *more)
        except FileNotFoundError:
            raise NoSuchObject("there is no such object") from None
        except ValueError as error:
            raise ImpossibleKey("no object can have this key") from error
        except PreconditionError as error:
            raise ObjectChanged("the object was replaced while it was read") from error
        except (BaseError, OSError) as error:  # An OSError is a timeout, or a folder that cannot be read.
            raise StorageUnavailable(f"the object store could not be reached ({type(error).__name__})") from error

    def _store(self, key: str) -> AnyStore:
        if self._folder is not None:
            _must_be_inside(self._folder, key)
        if self._opened is None:
            self._opened = _opened(self.location, self._folder)
        return self._opened

    def _read(self, key: str, most: int) -> bytes:
        found = self._store(key).get(key)
        if found.meta["size"] > most:
            raise ObjectTooLarge(found.meta["size"], most)
        return bytes(found.bytes())

    def _described(self, key: str) -> StoredObject:
        found = self._store(key).head(key)
        return StoredObject(found["size"], found["e_tag"])

    def _read_piece(self, key: str, etag: str | None, span: tuple[int, int]) -> Bytes:
        options: GetOptions = {"range": span, "if_match": etag}
        piece = self._store(key).get(key, options=options).bytes()
        if len(piece) != span[1] - span[0]:
            raise ObjectChanged("the object is shorter than it was")
        return piece

    def _put(self, key: str, content: Path | bytes) -> None:
        _make_relative(self.location)
        self._store(key).put(key, content)

    def _remove(self, key: str) -> None:
        try:
            self._store(key).delete(key)
        except FileNotFoundError:
            return


def _pieces(size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + PIECE_BYTES, size)) for start in range(0, size, PIECE_BYTES))


def _opened(location: str, folder: Path | None) -> AnyStore:
    if folder is not None:
        return LocalStore(prefix=folder)
    return from_url(location, client_options=_CLIENT, retry_config=_RETRIES)


def _folder_of(location: str) -> Path | None:
    if "://" not in location:
        return Path(location).absolute()
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _make_relative(location: str) -> None:
    """Make the folder of a laptop, `.data/objects`. An absolute one that is not there has not been mounted."""
    if "://" not in location and not Path(location).is_absolute():
        Path(location).mkdir(parents=True, exist_ok=True)


def _must_be_inside(folder: Path, key: str) -> None:
    if not folder.is_dir():
        raise StorageUnavailable(f"the folder {folder.name!r} of STORAGE_URL is not there")
    if not (folder / key).resolve().is_relative_to(folder.resolve()):
        raise ImpossibleKey("the key leads out of STORAGE_URL")


def _must_be_possible(key: str) -> None:
    parts = key.split("/")
    if len(key) > LONGEST_KEY or not key.isprintable() or any(part in {"", ".", ".."} for part in parts):
        raise ImpossibleKey("it is empty or too long, holds . or .. as a part, or begins or ends with a slash")
