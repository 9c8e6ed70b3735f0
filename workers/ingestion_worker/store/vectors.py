"""Vectors of the pieces of documents: kept, found again for the same text, searched. See infra/postgres/vectors.sql."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_runtime.postgres import storable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker_runtime.postgres import Database

__all__ = ["ChunkText", "Found", "VectorStore", "VectorsMissing"]

# Lengths of vectors that there is an index for; others are compared one by one.
INDEXED = frozenset({256, 384, 512, 768, 1024, 1536, 3072})
# As many vectors of one tenant are compared one by one: it takes a hundredth of a second, and misses nothing.
MOST_COMPARED = 10_000
# How widely, and how far, the index is searched before it gives up finding enough of one tenant among all others.
SEARCH_WIDTH, MOST_VISITED = 200, 200_000
# Without sorting there is no way to the nearest but the index: by its statistics a large tenant may look small.
IN_INDEX = (
    f"SET LOCAL hnsw.iterative_scan = relaxed_order; SET LOCAL hnsw.ef_search = {SEARCH_WIDTH};"
    f" SET LOCAL hnsw.max_scan_tuples = {MOST_VISITED}; SET LOCAL enable_sort = off"
)
# The nearest first, and the texts of no more than are wanted.
ONE_BY_ONE = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
READY = "SELECT to_regclass('document_vector') IS NOT NULL"
COUNT = """
SELECT (SELECT count(*) FROM document_chunk WHERE (tenant_id, document_id) = ($1, $2))
  FROM document WHERE (tenant_id, document_id) = ($1, $2)
"""
CHUNKS = """
SELECT number, text, tokens FROM document_chunk
 WHERE (tenant_id, document_id) = ($1, $2) AND number > $3
 ORDER BY number LIMIT $4
"""
# What the same text has got before, whether here or in another document of the tenant's.
REUSE = """
WITH known AS MATERIALIZED (
    SELECT asked.number, asked.digest, found.dimensions, found.embedding
      FROM unnest($4::integer[], $5::bytea[]) AS asked (number, digest)
     CROSS JOIN LATERAL (
           SELECT dimensions, embedding FROM document_vector
            WHERE (tenant_id, model, digest) = ($1, $3, asked.digest) LIMIT 1) AS found
), copied AS (
    INSERT INTO document_vector (tenant_id, document_id, model, number, digest, dimensions, embedding)
    SELECT $1, $2, $3, number, digest, dimensions, embedding FROM known
    ON CONFLICT DO NOTHING
)
SELECT number, dimensions FROM known
"""
# Only for a text that is still what it was.
ADD = """
INSERT INTO document_vector (tenant_id, document_id, model, number, digest, dimensions, embedding)
SELECT $1, $2, $3, new.number, new.digest, $4, new.embedding::halfvec
  FROM unnest($5::integer[], $6::bytea[], $7::text[]) AS new (number, digest, embedding)
  JOIN document_chunk AS chunk
    ON (chunk.tenant_id, chunk.document_id, chunk.number) = ($1, $2, new.number)
   AND sha256(convert_to(chunk.text, 'UTF8')) = new.digest
ON CONFLICT DO NOTHING
"""
LOCK = "SELECT FROM document WHERE (tenant_id, document_id) = ($1, $2) FOR UPDATE"
# Asked for one row after another, by their keys: as a join, while statistics are old, it takes seconds.
IS_RIGHT = """
(chunk.tenant_id, chunk.document_id, chunk.number) = (kept.tenant_id, kept.document_id, kept.number)
AND sha256(convert_to(chunk.text, 'UTF8')) = kept.digest
"""
COMPLETE = f"""
UPDATE document SET embedding_model = $3, embedded_at = clock_timestamp(), changed_at = clock_timestamp()
 WHERE (tenant_id, document_id) = ($1, $2)
   AND NOT EXISTS (
       SELECT FROM document_chunk AS chunk
        WHERE (chunk.tenant_id, chunk.document_id) = ($1, $2)
          AND (SELECT number FROM document_vector AS kept WHERE kept.model = $3 AND {IS_RIGHT}) IS NULL)
RETURNING 1
"""
CLEAR = f"""
DELETE FROM document_vector AS kept
 WHERE (kept.tenant_id, kept.document_id) = ($1, $2)
   AND (kept.model <> $3 OR (SELECT number FROM document_chunk AS chunk WHERE {IS_RIGHT}) IS NULL)
"""
HOW_MANY = """
SELECT count(*) FROM (SELECT FROM document_vector WHERE (tenant_id, model) = ($1, $2) LIMIT $3) AS found
"""
THE_TEXT = f"""
(SELECT text, first_page, last_page, headings FROM document_chunk AS chunk WHERE {IS_RIGHT}) AS chunk
"""
COMPARED = f"""
WITH mine AS MATERIALIZED (
    SELECT tenant_id, document_id, number, digest, embedding <=> $3::halfvec AS distance
      FROM document_vector WHERE (tenant_id, model) = ($1, $2) AND dimensions = $5
)
SELECT document_id, number, distance, chunk.*
  FROM (SELECT * FROM mine ORDER BY distance) AS kept CROSS JOIN LATERAL {THE_TEXT}
 ORDER BY distance LIMIT $4
"""


def near(dimensions: int) -> str:
    """Return the search in the index of such vectors. What it finds is nearly in order."""
    return f"""
SELECT document_id, number, embedding::halfvec({dimensions}) <=> $3::halfvec({dimensions}) AS distance, chunk.*
  FROM document_vector AS kept CROSS JOIN LATERAL {THE_TEXT}
 WHERE (tenant_id, model) = ($1, $2) AND dimensions = {dimensions}
 ORDER BY embedding::halfvec({dimensions}) <=> $3::halfvec({dimensions}) LIMIT $4
"""


class VectorsMissing(Exception):
    """The database has no place for vectors; the sentence says what to do."""


@dataclass(frozen=True, slots=True)
class ChunkText:
    """A piece of a document that is to have a vector."""

    number: int
    text: str
    tokens: int

    @property
    def digest(self) -> bytes:
        """What tells texts apart."""
        return hashlib.sha256(self.text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Found:
    """A piece that a search found, by cosine similarity: 1 is the same, 0 has nothing to do with it."""

    score: float
    document_id: str
    number: int
    first_page: int
    last_page: int
    headings: tuple[str, ...]
    text: str


class VectorStore:
    """Every method raises `DatabaseUnavailable` for what time may cure. A document is named by tenant and id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def refuse_without_vectors(self) -> None:
        """Raise `VectorsMissing` unless vectors can be kept here."""
        if not await self.is_ready():
            raise VectorsMissing(
                "the database has no place for vectors: install pgvector 0.8 or newer on its server and run"
                " `intelliflow migrate`, or set ENABLE_EMBEDDINGS=false"
            )

    async def is_ready(self) -> bool:
        """Tell whether vectors can be kept here."""
        async with self._database.connected() as connection:
            return bool(await connection.fetchval(READY))

    async def count(self, tenant: str, document: str) -> int | None:
        """Return how many pieces a document has; None: there is no such document."""
        async with self._database.connected() as connection:
            found: int | None = await connection.fetchval(COUNT, *_key(tenant, document))
        return found

    async def chunks(self, tenant: str, document: str, after: int, limit: int) -> list[ChunkText]:
        """Return the next pieces behind number `after`."""
        async with self._database.connected() as connection:
            rows = await connection.fetch(CHUNKS, *_key(tenant, document), after, limit)
        return [ChunkText(*row) for row in rows]

    async def reuse(self, tenant: str, document: str, model: str, chunks: Sequence[ChunkText]) -> dict[int, int]:
        """Give pieces the vectors that the tenant's same texts have: their numbers, and the length of each vector."""
        asked = ([chunk.number for chunk in chunks], [chunk.digest for chunk in chunks])
        async with self._database.connected() as connection:
            return dict(await connection.fetch(REUSE, *_key(tenant, document), model, *asked))

    async def add(self, tenant: str, document: str, model: str, vectors: Mapping[ChunkText, Sequence[float]]) -> None:
        """Keep the vectors of pieces, all of one length; one whose text has changed meanwhile is left out."""
        numbers = [chunk.number for chunk in vectors]
        digests = [chunk.digest for chunk in vectors]
        written = [_written(vector) for vector in vectors.values()]
        length = max(map(len, vectors.values()))
        async with self._database.connected() as connection:
            await connection.execute(ADD, *_key(tenant, document), model, length, numbers, digests, written)

    async def complete(self, tenant: str, document: str, model: str) -> bool:
        """Note that a document is embedded, and forget its other vectors. False, and no change, if a piece has none."""
        key = _key(tenant, document)
        async with self._database.transaction() as connection:
            # Whoever stores the document anew comes before this or after it.
            await connection.execute(LOCK, *key)
            if not await connection.fetchval(COMPLETE, *key, model):
                return False
            await connection.execute(CLEAR, *key, model)
        return True

    async def search(self, tenant: str, model: str, vector: Sequence[float], limit: int) -> list[Found] | None:
        """Return the tenant's pieces that are nearest, the nearest first; None: the tenant has no vectors of the model.

        Exact for a tenant with few vectors; among many, an index finds nearly all of the nearest.
        """
        asked = (storable(tenant), model, _written(vector), limit)
        async with self._database.transaction() as connection:
            many = await connection.fetchval(HOW_MANY, storable(tenant), model, MOST_COMPARED + 1)
            if not many:
                return None
            if many > MOST_COMPARED and len(vector) in INDEXED:
                await connection.execute(IN_INDEX)
                rows = await connection.fetch(near(len(vector)), *asked)
            else:
                await connection.execute(ONE_BY_ONE)
                rows = await connection.fetch(COMPARED, *asked, len(vector))
        return sorted(map(_found, rows), key=lambda found: -found.score)


def _key(tenant: str, document: str) -> tuple[str, str]:
    return storable(tenant), storable(document)


def _written(vector: Sequence[float]) -> str:
    """Write a vector as pgvector reads it; more digits than these are not kept."""
    return "[" + ",".join([format(number, ".6g") for number in vector]) + "]"


def _found(row: Any) -> Found:
    score = 1 - row["distance"]
    place = (row["document_id"], row["number"], row["first_page"], row["last_page"])
    return Found(score, *place, tuple(row["headings"]), row["text"])
