"""Documents where there is no database: whole results in the object store, as `objects.py` lays them out.

Nobody can search them, and there is no fence: of two jobs that read a document at once, the later one's result stays.
Pages that OCR reads are put there when all of them are read, so that those of a killed worker are read again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ingestion_worker.document import CHUNKS, PAGES, Page, read_lines, write_lines
from ingestion_worker.records import Content, Known, LostClaim, Reading, RecordsUnavailable
from ingestion_worker.store.objects import place_of
from worker_runtime.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence
    from pathlib import Path
    from typing import TypeVar

    from ingestion_worker.records import Claim, DocumentKey
    from ingestion_worker.store.objects import ObjectDocuments
    from worker_runtime.storage import ObjectStore

    T = TypeVar("T")

__all__ = ["StoredDocuments"]


class StoredDocuments:
    """See `Documents`."""

    def __init__(self, results: ObjectDocuments, store: ObjectStore) -> None:
        self._results = results
        self._store = store
        # What OCR has read, until all of it is put away.
        self._seen: WeakKeyDictionary[Claim, dict[int, Page]] = WeakKeyDictionary()

    async def begin(self, key: DocumentKey, claim: Claim) -> Known | None:
        """See `Documents`."""
        self._seen[claim] = {}
        record = await self._record(key)
        known = known_of(record) if record.get("sha256") else None
        if claim.content and (known is None or known.content != claim.content):
            raise LostClaim
        return known

    async def adopt(self, key: DocumentKey, claim: Claim, content: Content) -> Known | None:
        """See `Documents`. Nobody can look for a twin in an object store."""
        del key, claim, content
        return None

    async def keep(self, key: DocumentKey, claim: Claim, content: Content, reading: Reading, folder: Path) -> None:
        """See `Documents`."""
        read = {"sha256": content.sha256.hex(), "bytes": content.size, "pipeline": content.pipeline}
        await self._put(key, claim, read, reading, folder)

    async def keep_page(self, key: DocumentKey, claim: Claim, page: Page) -> None:
        """See `Documents`."""
        del key
        self._seen[claim][page.number] = page

    async def pictures(
        self, key: DocumentKey, claim: Claim, numbers: Sequence[int] | None, folder: Path, *, anew: bool = False
    ) -> Sequence[Page]:
        """See `Documents`."""
        await self.export_pages(key, claim, folder)
        return await asyncio.to_thread(pictures_of, folder / PAGES, numbers, anew)

    async def export_pages(self, key: DocumentKey, claim: Claim, folder: Path) -> None:
        """See `Documents`."""
        before, place = folder / "before.ndjson", place_of(key.tenant_id, key.document_id)
        with before.open("wb") as file:

            async def take(piece: Any) -> None:
                await asyncio.to_thread(file.write, piece)

            await _reached(self._store.fetch_to(f"{place}/{PAGES}", take, MOST_PAGES_BYTES))
        await asyncio.to_thread(write_lines, folder / PAGES, with_those_seen(before, self._seen[claim]))

    async def finish(self, key: DocumentKey, claim: Claim, reading: Reading, folder: Path) -> None:
        """See `Documents`."""
        record = await self._record(key)
        if not record.get("sha256") or (claim.content and known_of(record).content != claim.content):
            # Removed, or read anew, meanwhile.
            raise LostClaim
        read = {name: record[name] for name in ("sha256", "bytes", "pipeline")}
        await self._put(key, claim, read, reading, folder)

    async def note_problem(
        self, key: DocumentKey, claim: Claim, problem: str, explanation: str, *, final: bool
    ) -> None:
        """See `Documents`. Here the dead letter alone tells of it."""
        del key, claim, problem, explanation, final

    async def _record(self, key: DocumentKey) -> dict[str, Any]:
        return await _reached(self._results.get(key.tenant_id, key.document_id)) or {}

    async def _put(self, key: DocumentKey, claim: Claim, read: dict[str, Any], reading: Reading, folder: Path) -> None:
        is_cut = (folder / CHUNKS).exists()
        fields = {
            "tenantId": key.tenant_id,
            "documentId": key.document_id,
            "source": claim.origin.source,
            "userId": claim.origin.user_id,
            "state": "read" if is_cut else "awaiting_ocr",
            **read,
            "mediaType": reading.media_type,
            "language": reading.language,
            "pages": reading.pages,
            "characters": reading.characters,
            "metadata": reading.metadata,
            "chunks": await asyncio.to_thread(lines_of, folder / CHUNKS) if is_cut else None,
        }
        await _reached(self._results.put_result(fields, folder))


MOST_PAGES_BYTES = 536_870_912


def known_of(record: dict[str, Any]) -> Known:
    """Read a record."""
    content = Content(bytes.fromhex(record["sha256"]), record["bytes"], record["pipeline"])
    reading = Reading(
        record["mediaType"], record["language"], record["pages"], record["characters"], record["metadata"]
    )
    return Known(record["state"], content, reading, record["chunks"])


def with_those_seen(path: Path, seen: dict[int, Page]) -> Iterator[Page]:
    """Yield the pages of a file, those that OCR has read instead of what they were."""
    for page in read_lines(path, Page):
        yield seen.get(page.number, page)


def lines_of(path: Path) -> int:
    """Count the lines of a file."""
    with path.open("rb") as file:
        return sum(1 for _ in file)


def pictures_of(path: Path, numbers: Sequence[int] | None, anew: bool) -> list[Page]:  # noqa: FBT001  to_thread's
    """Return pages of a file: those with these numbers, or those whose pictures are still to be read."""
    pages = read_lines(path, Page)
    if numbers is not None:
        wanted = set(numbers)
        return [page for page in pages if page.number in wanted]
    return [page for page in pages if page.ocr_reason and (anew or (page.origin != "ocr" and not is_failed(page)))]


def is_failed(page: Page) -> bool:
    """Tell whether OCR has tried this page already, in vain."""
    return (page.ocr_reason or "").startswith("FAILED:")


async def _reached(work: Awaitable[T]) -> T:
    try:
        return await work
    except StorageError as error:
        raise RecordsUnavailable(str(error)) from error
