"""What was read of documents, in the object store: the place for results where there is no database.

Beside `documents/<tenant>/<document>/document.json` lie the files of pages and chunks. It is written last and says how
many bytes they have and with which hash, so whoever reads them can tell whether they are those it speaks of.
"""

from __future__ import annotations

import hashlib
import json
import re
from asyncio import to_thread
from typing import TYPE_CHECKING, Any

from ingestion_worker.document import CHUNKS, PAGES
from worker_runtime.storage import NoSuchObject, StorageUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from worker_runtime.storage import ObjectStore

__all__ = ["ObjectDocuments", "place_of"]

RECORD = "document.json"
MOST_RECORD_BYTES = 1_048_576
LONGEST_PART = 200
# A dot in front would make a file hidden, or a part of a path that leads elsewhere.
_ESCAPED = re.compile(rb"^\.|[^A-Za-z0-9.-]")


class ObjectDocuments:
    """Results in an object store. Every method raises `StorageError`.

    Of two that write the same document at once the later one's record stays. There is no fence as in a database, but a
    record never speaks of pages that are not its own without their hashes telling so.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def put_result(self, document_fields: dict[str, Any], folder: Path) -> None:
        """Write what is in `folder` of pages and chunks, then the record with these fields and `files`.

        `tenantId` and `documentId` are among the fields, which are JSON. May be called again with another result; what
        that has not got, chunks perhaps, is removed.
        """
        place = place_of(document_fields["tenantId"], document_fields["documentId"])
        files = await to_thread(_described, folder)
        for name in files:
            await self._store.put(f"{place}/{name}", folder / name)
        record = json.dumps(document_fields | {"files": files}, separators=(",", ":"))
        await self._store.put(f"{place}/{RECORD}", record.encode())
        for name in {PAGES, CHUNKS} - files.keys():
            await self._store.remove(f"{place}/{name}")

    async def get(self, tenant: str, document_id: str) -> dict[str, Any] | None:
        """Return a document's record, or nothing if it has none."""
        try:
            text = await self._store.read(f"{place_of(tenant, document_id)}/{RECORD}", MOST_RECORD_BYTES)
        except NoSuchObject:
            return None
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise StorageUnavailable("what is stored as document.json is not a JSON object: remove it")
        return record


def place_of(tenant: str, document_id: str) -> str:
    """Return the beginning of all keys of a document: no two documents share one, whatever their ids are."""
    return f"documents/{_part(tenant)}/{_part(document_id)}"


def _part(text: str) -> str:
    """Write an id as one part of a key, in characters that every store and file system takes.

    Letters, digits, `-` and an inner `.` stay; every other byte of its UTF-8 becomes `_` and two hexadecimal digits. An
    id that would be too long that way becomes `__` and its SHA-256, and `__` begins no other.
    """
    octets = text.encode("utf-8", "surrogatepass")
    part = _ESCAPED.sub(lambda found: b"_%02X" % found[0][0], octets).decode("ascii")
    return part if len(part) <= LONGEST_PART else f"__{hashlib.sha256(octets).hexdigest()}"


def _described(folder: Path) -> dict[str, dict[str, Any]]:
    return {name: _facts(folder / name) for name in (PAGES, CHUNKS) if (folder / name).exists()}


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
