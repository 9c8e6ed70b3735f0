"""Brings a document from wherever its URL points into a folder of ours.

    async with opened_fetcher(settings) as fetcher:
        fetched = await fetcher.fetch(job.payload.source_url, folder)

A new place that documents may come from is a `Source` in a file beside this one, and a line in `_sources`.
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingestion_worker.fetching.failed import FetchFailed
from ingestion_worker.fetching.files import Files
from ingestion_worker.fetching.landing import landing
from ingestion_worker.fetching.objects import Objects
from ingestion_worker.fetching.web import Web
from worker_runtime.egress import Patience, egress
from worker_runtime.outcome import DeadLetter, Retry
from worker_runtime.storage import SCHEMES as STORES
from worker_runtime.storage import ObjectStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    from ingestion_worker.fetching.settings import FetchingSettings
    from ingestion_worker.fetching.source import Source
    from worker_runtime.egress import EgressClient

__all__ = ["Fetched", "Fetcher", "opened_fetcher"]

THREADS = 4
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(file):/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document that is here: `sha256` and `size` of its bytes, and what its source says about them (see `Origin`)."""

    path: Path
    sha256: bytes
    size: int
    media_type: str | None
    charset: str | None
    name: str


class Fetcher:
    """Fetches documents, many at once. `pool` is where files are written."""

    def __init__(
        self, sources: Mapping[str, Source], store: ObjectStore, settings: FetchingSettings, pool: Executor
    ) -> None:
        self._sources = sources
        self._store = store
        self._most = settings.document_max_bytes
        self._seconds = settings.fetch_timeout_ms / 1000
        self._pool = pool

    async def fetch(self, url: str, folder: Path) -> Fetched:
        """Write the document to `folder`/source. Raises FetchFailed, or `DocumentError` for one that is too large.

        If it fails, or is cancelled, nothing is left in the folder and no thread writes to it any more.
        """
        source = self._source(url)
        async with landing(folder, self._most, self._pool) as place:
            with self._in_time():
                async with asyncio.timeout(self._seconds):
                    origin = await source.fetch(url, place)
            sha256 = await place.landed()
        return Fetched(place.path, sha256, place.size, origin.media_type, origin.charset, origin.name)

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            reason = f"the document was not here after {self._seconds:g} s; FETCH_TIMEOUT_MS allows no more"
            raise FetchFailed(Retry("FETCH_INTERRUPTED", reason)) from error

    def _source(self, url: str) -> Source:
        scheme = _SCHEME.match(url)
        if scheme is None or self._store.holds(url):
            return self._sources[""]
        name = (scheme[1] or scheme[2]).lower()
        if name not in self._sources:
            reason = "sourceUrl: a document comes by http, https, file, or from the store at STORAGE_URL"
            raise FetchFailed(DeadLetter("INVALID_PAYLOAD", reason))
        return self._sources[name]


@asynccontextmanager
async def opened_fetcher(
    settings: FetchingSettings, *, client: EgressClient | None = None, store: ObjectStore | None = None
) -> AsyncIterator[Fetcher]:
    """Open a fetcher; connections are made when the first document needs one.

    `client` and `store` are used where given, and closed by whoever opened them.
    """
    async with AsyncExitStack() as opened:
        if client is None:
            client = await opened.enter_async_context(egress(settings))
        if store is None:
            store = ObjectStore(settings.storage_url)
            opened.callback(store.close)
        here, there = _threads(opened, "landing"), _threads(opened, "documents")
        yield Fetcher(_sources(settings, client, store, there), store, settings, here)


def _sources(settings: FetchingSettings, client: EgressClient, store: ObjectStore, pool: Executor) -> dict[str, Source]:
    """Return who fetches by which scheme; the empty one is a plain key, or a URL of the store itself."""
    objects = Objects(store)
    web = Web(client, Patience(settings.fetch_timeout_ms / 1000))
    return {
        **dict.fromkeys(STORES, objects),
        "": objects,
        "http": web,
        "https": web,
        "file": Files(settings.documents_root, pool),
    }


def _threads(opened: AsyncExitStack, name: str) -> Executor:
    # Two pools: a mount that hangs holds up those who read from it, and nobody who writes what came from elsewhere.
    pool = ThreadPoolExecutor(THREADS, name)
    opened.callback(pool.shutdown, wait=False)
    return pool
