"""A scan as a PDF that can be searched and copied from, for people: OCR_SEARCHABLE_PDF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestion_worker.ocr.searchable_pdf import SEARCHABLE_PDF
from ingestion_worker.records import RecordsUnavailable
from ingestion_worker.store.objects import place_of
from worker_runtime.storage import StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import SecretStr

    from ingestion_worker.isolation.isolation import Isolation
    from ingestion_worker.records import DocumentKey, Reading
    from worker_runtime.storage import ObjectStore

__all__ = ["Bookbinder"]


class Bookbinder:
    """Puts the pages of a working folder together and the book into the object store."""

    def __init__(self, isolation: Isolation, store: ObjectStore) -> None:
        self._isolation = isolation
        self._store = store

    async def bind(self, key: DocumentKey, reading: Reading, password: SecretStr | None, folder: Path) -> None:
        """Write `documents/<tenant>/<document>/searchable.pdf`. Raises `DocumentError`, `RecordsUnavailable`."""
        order = {
            "mediaType": reading.media_type,
            "password": password.get_secret_value() if password else None,
            "pages": reading.pages,
        }
        await self._isolation.run("assemble", order, folder)
        try:
            place = place_of(key.tenant_id, key.document_id)
            await self._store.put(f"{place}/{SEARCHABLE_PDF}", folder / SEARCHABLE_PDF)
        except StorageError as error:
            raise RecordsUnavailable(str(error)) from error
