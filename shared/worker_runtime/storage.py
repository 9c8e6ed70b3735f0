"""The object store: a folder, S3, Google's or Azure's, behind one address (`STORAGE_URL`).

A store's credentials are read as its provider's own tools read them (`AWS_ACCESS_KEY_ID`, a service account, a role of
the machine); the store is the operator's own, so the guard of `egress.py` has no say in it.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig
    from obstore.store import ObjectStore as AnyStore

__all__ = [
    "ImpossibleKey",
    "NoSuchObject",
    "ObjectStore",
    "ObjectTooLarge",
    "StorageError",
    "StorageUnavailable",
    "storage_location",
]

SCHEMES = frozenset({"file", "s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss"})
LONGEST_KEY = 1024
SECONDS = 30.0
READERS = 4
# Plain http is spoken only to an endpoint that the operator wrote so, such as a MinIO beside the worker.
_CLIENT: ClientConfig = {"connect_timeout": "5s", "timeout": "15s", "allow_http": True}
_RETRIES: RetryConfig = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}


class StorageError(Exception):
    """An object was not read. The message holds neither the address of the store nor its own words."""


class ImpossibleKey(StorageError):
    """No object can have this key: it is empty, too long, absolute, or leads out of the store. Never again."""


class NoSuchObject(StorageError):
    """There is no object with this key. Never again, unless somebody puts it there."""


class ObjectTooLarge(StorageError):
    """The object is larger than it may be, and was not read. Never again."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"{size} bytes, and at most {most} are allowed")
        self.size = size


class StorageUnavailable(StorageError):
    """The store could not be reached, did not answer in time or let us in. Later, or when somebody acts."""


def storage_location(value: str) -> str:
    """Return where a store is, as `STORAGE_URL` says it. Raises ValueError for what is neither a folder nor a store."""
    scheme = urlsplit(value).scheme
    if "://" not in value:
        return value
    if scheme not in SCHEMES:
        raise ValueError("neither a folder nor the URL of an object store such as s3://bucket/prefix")
    return value


class ObjectStore:
    """Reads objects by their keys. Nothing is opened before the first of them is read."""

    def __init__(self, location: str) -> None:
        self.location = location.rstrip("/")
        self._folder = _folder_of(location)
        self._opened: AnyStore | None = None
        # Threads, for obstore's own way into asyncio aborts a process that ends soon after a read, one time in three:
        # its runtime lets go of Python's objects when Python is gone. And threads of its own, so that a store that
        # hangs leaves those alone that look up names.
        self._readers = ThreadPoolExecutor(READERS, "storage")

    def key_of(self, url: str) -> str:
        """Return the key of an object of this store by its URL. Raises ImpossibleKey for any other URL."""
        start = f"{self.location}/"
        if "://" not in start or not url.startswith(start):
            raise ImpossibleKey("the URL is not one of an object under STORAGE_URL")
        return unquote(url.removeprefix(start))

    async def read(self, key: str, most: int, *, seconds: float = SECONDS) -> bytes:
        """Return an object of at most that many bytes. Raises StorageError, each kind of which says what to do."""
        _must_be_possible(key)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, key, most)
        except FileNotFoundError:
            raise NoSuchObject("there is no such object") from None
        except ValueError as error:
            raise ImpossibleKey("no object can have this key") from error
        except (BaseError, OSError) as error:  # An OSError is a timeout, or a folder that cannot be read.
            raise StorageUnavailable(f"the object store could not be read ({type(error).__name__})") from error

    def close(self) -> None:
        """Start no more reading; what is being read is waited for by nobody."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    def _read(self, key: str, most: int) -> bytes:
        if self._folder is not None:
            _must_be_inside(self._folder, key)
        if self._opened is None:
            self._opened = _opened(self.location, self._folder)
        found = self._opened.get(key)
        if found.meta["size"] > most:
            raise ObjectTooLarge(found.meta["size"], most)
        return bytes(found.bytes())


def _opened(location: str, folder: Path | None) -> AnyStore:
    if folder is not None:
        return LocalStore(prefix=folder)
    return from_url(location, client_options=_CLIENT, retry_config=_RETRIES)


def _folder_of(location: str) -> Path | None:
    if "://" not in location:
        return Path(location).absolute()
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _must_be_inside(folder: Path, key: str) -> None:
    if not folder.is_dir():
        raise StorageUnavailable(f"the folder {folder.name!r} of STORAGE_URL is not there")
    if not (folder / key).resolve().is_relative_to(folder.resolve()):
        raise ImpossibleKey("the key leads out of STORAGE_URL")


def _must_be_possible(key: str) -> None:
    parts = key.split("/")
    if len(key) > LONGEST_KEY or not key.isprintable() or any(part in {"", ".", ".."} for part in parts):
        raise ImpossibleKey("it is empty or too long, holds . or .. as a part, or begins or ends with a slash")
