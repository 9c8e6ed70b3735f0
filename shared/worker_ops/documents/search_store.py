"""Pieces of text by their words: SQL of `intelliflow documents search` where nothing is embedded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestion_worker.store.vectors import Found
from worker_runtime.postgres import storable

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

# What holds every word comes before what holds some: small words count as much as others, for in which language?
BY_WORDS = """
WITH asked AS MATERIALIZED (
    SELECT plainto_tsquery('simple', $2) AS all_words,
           replace(plainto_tsquery('simple', $2)::text, ' & ', ' | ')::tsquery AS any_word
)
SELECT ts_rank_cd(to_tsvector('simple', text), any_word, 32) AS score, document_id, number, first_page, last_page,
       headings, text
  FROM document_chunk, asked
 WHERE to_tsvector('simple', text) @@ any_word AND tenant_id = $1
 ORDER BY to_tsvector('simple', text) @@ all_words DESC, score DESC, document_id, number
 LIMIT $3
"""
# The only way there is into an index of words.
BY_BITMAP = "SET LOCAL enable_bitmapscan = on"


class DocumentsView:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_words(self, tenant: str, text: str, limit: int) -> list[Found]:
        """Return the tenant's pieces of text that hold the most of the words."""
        async with self._database.transaction() as connection:
            await connection.execute(BY_BITMAP)
            rows = await connection.fetch(BY_WORDS, storable(tenant), storable(text), limit)
        return [Found(**(dict(row) | {"headings": tuple(row["headings"])})) for row in rows]
