"""Documents of the object store, by URL below STORAGE_URL or by key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestion_worker.fetching.failed import FetchFailed, too_large
from ingestion_worker.fetching.names import NAMELESS, file_name
from ingestion_worker.fetching.source import Origin
from worker_runtime.outcome import DeadLetter, Defer, Retry
from worker_runtime.storage import (
    ImpossibleKey,
    NoSuchObject,
    ObjectChanged,
    ObjectTooLarge,
    StorageError,
    StorageUnavailable,
)

if TYPE_CHECKING:
    from ingestion_worker.fetching.landing import Landing
    from worker_runtime.storage import ObjectStore

__all__ = ["Objects", "storage_outcome"]

STORAGE_PAUSE_SECONDS = 5.0


class Objects:
    """See `Source`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def fetch(self, url: str, landing: Landing) -> Origin:
        """See `Source`."""
        try:
            key = self._store.key_of(url) if "://" in url else url
            await self._store.fetch_to(key, landing.take, landing.most)
        except ObjectTooLarge as error:
            raise too_large(error.size, landing.most) from error
        except StorageError as error:
            raise FetchFailed(storage_outcome(error)) from error
        return Origin(file_name(key) or NAMELESS)


def storage_outcome(error: StorageError) -> Retry | Defer | DeadLetter:
    """Decide what becomes of a job whose document, or result, is in the object store and was not to be had."""
    match error:
        case NoSuchObject():
            return DeadLetter("DOCUMENT_MISSING", "the document is not in the object store")
        case ObjectChanged():
            return Retry("FETCH_CHANGED", str(error))
        case StorageUnavailable():
            return Defer("STORAGE_UNAVAILABLE", str(error), STORAGE_PAUSE_SECONDS)
        case ImpossibleKey() | _:
            return DeadLetter("INVALID_PAYLOAD", f"sourceUrl: {error}")
