"""A fetcher that may reach loopback, and the folder it fetches into."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingestion_worker.fetching.failed import FetchFailed
from ingestion_worker.fetching.fetch import Fetched, Fetcher, opened_fetcher
from ingestion_worker.fetching.settings import FetchingSettings
from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from worker_runtime.outcome import DeadLetter, Defer, Retry

MOST = 5_000_000


@dataclass
class FetchDesk:
    fetcher: Fetcher
    folder: Path

    async def fetch(self, url: str) -> Fetched:
        return await self.fetcher.fetch(url, self.folder)

    async def refused(self, url: str) -> Retry | Defer | DeadLetter:
        """Return what becomes of a job whose document does not arrive; nothing of it may be left."""
        try:
            fetched = await self.fetch(url)
        except FetchFailed as failed:
            assert not self.left()
            return failed.outcome
        raise AssertionError(f"it was fetched: {fetched}")

    async def problem(self, url: str) -> Problem:
        try:
            fetched = await self.fetch(url)
        except DocumentError as error:
            assert not self.left()
            return error.problem
        raise AssertionError(f"it was fetched: {fetched}")

    async def waiting(self) -> bool:
        """Tell whether a fetch has begun."""
        return bool(self.left())

    async def writing(self) -> bool:
        """Tell whether something of a document is in the folder."""
        return any(path.stat().st_size for path in self.folder.iterdir())

    def left(self) -> list[str]:
        """Name the files in the folder."""
        return sorted(path.name for path in self.folder.iterdir())


def fetching_settings(folder: Path, **changes: Any) -> FetchingSettings:
    usual = {"storage_url": str(folder / "objects"), "document_max_bytes": MOST, "fetch_timeout_ms": 60_000}
    return FetchingSettings(**{**usual, "egress_allowed_cidrs": ("127.0.0.0/8",), **changes})


@asynccontextmanager
async def fetch_desk(folder: Path, *, client: Any = None, **changes: Any) -> AsyncIterator[FetchDesk]:
    work = folder / "work"
    work.mkdir()
    async with opened_fetcher(fetching_settings(folder, **changes), client=client) as fetcher:
        yield FetchDesk(fetcher, work)
