"""Documents as an operator sees them: find, show, delete. SQL of `intelliflow documents`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from worker_runtime.postgres import Database

# $1 to $6 are a `Selection`.
CHOSEN = """
  FROM document
 WHERE ($1::text[] IS NULL OR document_id = ANY ($1))
   AND ($2::text IS NULL OR tenant_id = $2)
   AND ($3::text IS NULL OR state = $3)
   AND ($4::text IS NULL OR problem = $4)
   AND ($5::timestamptz IS NULL OR changed_at < $5)
   AND ($6::timestamptz IS NULL OR changed_at >= $6)
"""
COUNT = f"SELECT count(*) {CHOSEN}"
NEWEST = f"SELECT * {CHOSEN} ORDER BY changed_at DESC LIMIT $7"
GROUPS = f"""
SELECT state, problem, media_type, count(*) AS count, min(changed_at) AS oldest, max(changed_at) AS newest,
       min(document_id) AS example
{CHOSEN}
 GROUP BY state, problem, media_type ORDER BY count DESC, state, problem, media_type
"""
PAGES = """
SELECT number, origin, ocr_reason, confidence, length(text) AS characters, CASE WHEN $3 THEN text END AS text
  FROM document_page WHERE tenant_id = $1 AND document_id = $2 ORDER BY number
"""
DELETE = "DELETE FROM document WHERE tenant_id = $1 AND document_id = ANY ($2) RETURNING document_id"


@dataclass(frozen=True, slots=True)
class Selection:
    """Documents by what they are; `None` is any."""

    documents: Sequence[str] | None = None
    tenant: str | None = None
    state: str | None = None
    problem: str | None = None
    changed_before: datetime | None = None
    changed_after: datetime | None = None

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What `CHOSEN` asks for."""
        return (self.documents, self.tenant, self.state, self.problem, self.changed_before, self.changed_after)


class DocumentsStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, selection: Selection, limit: int) -> Sequence[Any]:
        """Return rows of documents, those that changed last first."""
        async with self._database.connected() as connection:
            return list(await connection.fetch(NEWEST, *selection.arguments, limit))

    async def count(self, selection: Selection) -> int:
        """Return how many there are."""
        async with self._database.connected() as connection:
            return int(await connection.fetchval(COUNT, *selection.arguments))

    async def groups(self, selection: Selection) -> Sequence[Any]:
        """Return how many there are of each kind."""
        async with self._database.connected() as connection:
            return list(await connection.fetch(GROUPS, *selection.arguments))

    async def pages(self, tenant: str, document: str, *, with_text: bool) -> Sequence[Any]:
        """Return the pages of a document."""
        async with self._database.connected() as connection:
            return list(await connection.fetch(PAGES, tenant, document, with_text))

    async def delete(self, tenant: str, documents: Sequence[str]) -> list[str]:
        """Remove documents with pages, chunks and vectors; return the ids of those that were there."""
        async with self._database.connected() as connection:
            return [row["document_id"] for row in await connection.fetch(DELETE, tenant, documents)]
