"""Documents, pages and chunks in PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from ingestion_worker.document import CHUNKS, PAGES, Chunk, Page, read_lines, write_lines
from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.records import Content, Known, LostClaim, Reading, RecordsUnavailable
from worker_runtime.postgres import DatabaseUnavailable, storable, storable_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    import asyncpg

    from ingestion_worker.records import Claim, DocumentKey
    from worker_runtime.postgres import Database

__all__ = ["PostgresDocuments"]

L = TypeVar("L", Page, Chunk)

# SQLSTATE classes: data exception, integrity, program limit exceeded.
VALUE_ERRORS = ("22", "23", "54")
# Rows that are sent, or read from a file, at a time: a page may be a megabyte.
BATCH = 50

KNOWN = """
       state, sha256, pipeline, bytes, media_type, language, metadata::text AS metadata, pages, characters, chunks,
       embedding_model
"""
# `known` is the row as it was when the statement began.
BEGIN = f"""
WITH known AS (SELECT * FROM document WHERE tenant_id = $1 AND document_id = $2), begun AS (
    INSERT INTO document (tenant_id, document_id, claim, source, user_id, state)
    VALUES ($1, $2, $3, $4, $5, 'reading')
        ON CONFLICT (tenant_id, document_id) DO UPDATE
       SET claim = excluded.claim, source = excluded.source, user_id = coalesce(excluded.user_id, document.user_id),
           changed_at = clock_timestamp()
)
SELECT {KNOWN} FROM known
"""
LOOK = f"SELECT {KNOWN} FROM document WHERE tenant_id = $1 AND document_id = $2"
# Locked until the commit, so that nobody takes the claim between the look and the write.
HOLD = "SELECT claim = $3 FROM document WHERE tenant_id = $1 AND document_id = $2 FOR UPDATE"
HOLD_CONTENT = """
SELECT sha256 = $3 AND pipeline = $4 AND state <> 'read'
  FROM document WHERE tenant_id = $1 AND document_id = $2 FOR UPDATE
"""
EMPTY = (
    "DELETE FROM document_chunk WHERE tenant_id = $1 AND document_id = $2",
    "DELETE FROM document_page WHERE tenant_id = $1 AND document_id = $2",
)
INSERT_PAGES = """
INSERT INTO document_page (tenant_id, document_id, number, text, origin, ocr_reason, confidence)
SELECT $1, $2, * FROM unnest($3::int[], $4::text[], $5::text[], $6::text[], $7::real[])
    ON CONFLICT (tenant_id, document_id, number) DO UPDATE
   SET text = excluded.text, origin = excluded.origin, ocr_reason = excluded.ocr_reason,
       confidence = excluded.confidence
"""
# An array of arrays must be a rectangle, so each row's headings come as JSON.
INSERT_CHUNKS = """
INSERT INTO document_chunk (tenant_id, document_id, number, text, tokens, first_page, last_page, headings)
SELECT $1, $2, number, text, tokens, first_page, last_page,
       ARRAY(SELECT jsonb_array_elements_text(headings::jsonb))
  FROM unnest($3::int[], $4::text[], $5::int[], $6::int[], $7::int[], $8::text[])
       AS cut (number, text, tokens, first_page, last_page, headings)
"""
DESCRIBE = """
UPDATE document
   SET state = $3, sha256 = coalesce($4, sha256), bytes = coalesce($5, bytes), pipeline = coalesce($6, pipeline),
       media_type = $7, language = $8, metadata = $9, pages = $10, characters = $11, chunks = $12,
       problem = NULL, explanation = NULL, embedding_model = NULL, embedded_at = NULL,
       read_at = CASE WHEN $3 = 'read' THEN clock_timestamp() END, changed_at = clock_timestamp()
 WHERE tenant_id = $1 AND document_id = $2
"""
TWIN = f"""
SELECT document_id, {KNOWN}
  FROM document
 WHERE tenant_id = $1 AND document_id <> $2 AND sha256 = $3 AND pipeline = $4 AND state = 'read'
 LIMIT 1
   FOR SHARE
"""
COPY = (
    """
INSERT INTO document_page (tenant_id, document_id, number, text, origin, ocr_reason, confidence)
SELECT tenant_id, $2, number, text, origin, ocr_reason, confidence
  FROM document_page WHERE tenant_id = $1 AND document_id = $3
""",
    """
INSERT INTO document_chunk (tenant_id, document_id, number, text, tokens, first_page, last_page, headings)
SELECT tenant_id, $2, number, text, tokens, first_page, last_page, headings
  FROM document_chunk WHERE tenant_id = $1 AND document_id = $3
""",
)
PICTURES = """
SELECT number, text, origin, ocr_reason, confidence FROM document_page
 WHERE tenant_id = $1 AND document_id = $2
   AND CASE WHEN $3::int[] IS NULL
            THEN ocr_reason IS NOT NULL AND ($4 OR origin <> 'ocr' AND NOT starts_with(ocr_reason, 'FAILED:'))
            ELSE number = ANY ($3) END
 ORDER BY number
"""
SOME_PAGES = """
SELECT number, text, origin, ocr_reason, confidence FROM document_page
 WHERE tenant_id = $1 AND document_id = $2 AND number > $3 ORDER BY number LIMIT $4
"""
NOTE = """
UPDATE document
   SET problem = $3, explanation = $4, state = CASE WHEN $5 THEN 'failed' ELSE state END, changed_at = clock_timestamp()
 WHERE tenant_id = $1 AND document_id = $2
"""


class PostgresDocuments:
    """See `Documents`. Each of the connections is lent to one job at a time: to keep a long document takes seconds."""

    def __init__(self, *connections: Database) -> None:
        self._idle: asyncio.LifoQueue[Database] = asyncio.LifoQueue()
        for connection in connections:
            self._idle.put_nowait(connection)

    async def begin(self, key: DocumentKey, claim: Claim) -> Known | None:
        """See `Documents`."""
        if claim.content is not None:
            return await self._look(key, claim.content)
        async with self._connected() as connection:
            row = await connection.fetchrow(
                BEGIN, *_id(key), claim.token, storable(claim.origin.source), claim.origin.user_id
            )
        return known_of(row) if row else None

    async def _look(self, key: DocumentKey, content: Content) -> Known:
        async with self._connected() as connection:
            row = await connection.fetchrow(LOOK, *_id(key))
        known = known_of(row) if row else None
        if known is None or known.content != content:
            raise LostClaim
        return known

    async def adopt(self, key: DocumentKey, claim: Claim, content: Content) -> Known | None:
        """See `Documents`."""
        async with self._claimed(key, claim) as connection:
            twin = await connection.fetchrow(TWIN, *_id(key), content.sha256, content.pipeline)
            if twin is None:
                return None
            # Its vectors are the twin's own.
            known = replace(known_of(twin), embedding_model=None)
            for statement in EMPTY:
                await connection.execute(statement, *_id(key))
            for statement in COPY:
                await connection.execute(statement, *_id(key), twin["document_id"])
            await _describe(connection, key, "read", content, known.reading, known.chunks)
        return known

    async def keep(self, key: DocumentKey, claim: Claim, content: Content, reading: Reading, folder: Path) -> None:
        """See `Documents`."""
        async with self._claimed(key, claim) as connection:
            for statement in EMPTY:
                await connection.execute(statement, *_id(key))
            async for pages in _batches(read_lines(folder / PAGES, Page)):
                await connection.execute(INSERT_PAGES, *_id(key), *_columns_of_pages(pages))
            chunks = await _insert_chunks(connection, key, folder)
            await _describe(connection, key, "awaiting_ocr" if chunks is None else "read", content, reading, chunks)

    async def keep_page(self, key: DocumentKey, claim: Claim, page: Page) -> None:
        """See `Documents`."""
        async with self._claimed(key, claim) as connection:
            await connection.execute(INSERT_PAGES, *_id(key), *_columns_of_pages([page]))

    async def pictures(
        self, key: DocumentKey, claim: Claim, numbers: Sequence[int] | None, folder: Path, *, anew: bool = False
    ) -> Sequence[Page]:
        """See `Documents`."""
        del folder
        async with self._claimed(key, claim) as connection:
            return [Page(*row) for row in await connection.fetch(PICTURES, *_id(key), numbers, anew)]

    async def export_pages(self, key: DocumentKey, claim: Claim, folder: Path) -> None:
        """See `Documents`."""
        del claim
        path, last = folder / PAGES, 0
        path.write_bytes(b"")
        async with self._connected() as connection:
            while rows := await connection.fetch(SOME_PAGES, *_id(key), last, BATCH):
                await asyncio.to_thread(write_lines, path, [Page(*row) for row in rows], append=True)
                last = rows[-1]["number"]

    async def finish(self, key: DocumentKey, claim: Claim, reading: Reading, folder: Path) -> None:
        """See `Documents`."""
        async with self._claimed(key, claim) as connection:
            await connection.execute(EMPTY[0], *_id(key))
            chunks = await _insert_chunks(connection, key, folder)
            await _describe(connection, key, "read", None, reading, chunks or 0)

    async def note_problem(
        self, key: DocumentKey, claim: Claim, problem: str, explanation: str, *, final: bool
    ) -> None:
        """See `Documents`."""
        async with self._claimed(key, claim) as connection:
            await connection.execute(NOTE, *_id(key), problem, storable(explanation), final)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        database = await self._idle.get()
        try:
            async with database.connected() as connection:
                yield connection
        except DatabaseUnavailable as error:
            if is_the_value_s_fault(error.__cause__):
                # Its own words may hold the row, and so the text of a page.
                kind = type(error.__cause__).__name__
                raise DocumentError(Problem.UNSUPPORTED, f"the database does not take it ({kind})") from error
            raise RecordsUnavailable(str(error)) from error
        finally:
            self._idle.put_nowait(database)

    @asynccontextmanager
    async def _claimed(self, key: DocumentKey, claim: Claim) -> AsyncIterator[asyncpg.Connection]:
        """Lend the connection within a transaction that only the holder of the claim gets."""
        question, proof = held_by(claim)
        async with self._connected() as connection, connection.transaction():
            if not await connection.fetchval(question, *_id(key), *proof):
                raise LostClaim
            yield connection


def held_by(claim: Claim) -> tuple[str, tuple[Any, ...]]:
    """Return how to ask whether a claim still holds, and with what."""
    if claim.content is None:
        return HOLD, (claim.token,)
    return HOLD_CONTENT, (claim.content.sha256, claim.content.pipeline)


def is_the_value_s_fault(cause: BaseException | None) -> bool:
    """Tell an error that no wait cures: this very document has what PostgreSQL cannot hold."""
    return str(getattr(cause, "sqlstate", "")).startswith(VALUE_ERRORS)


def known_of(row: asyncpg.Record) -> Known:
    """Read a row of `KNOWN`."""
    content = Content(row["sha256"], row["bytes"], row["pipeline"]) if row["sha256"] else None
    reading = row["pages"] is not None and Reading(
        row["media_type"], row["language"], row["pages"], row["characters"], json.loads(row["metadata"])
    )
    return Known(row["state"], content, reading or None, row["chunks"], row["embedding_model"])


def _id(key: DocumentKey) -> tuple[str, str]:
    return key.tenant_id, key.document_id


async def _describe(
    connection: asyncpg.Connection,
    key: DocumentKey,
    state: str,
    content: Content | None,
    reading: Reading | None,
    chunks: int | None,
) -> None:
    bytes_read = (content.sha256, content.size, content.pipeline) if content else (None, None, None)
    said: tuple[Any, ...] = (None, None, "{}", None, None)
    if reading:
        metadata = json.dumps(storable_json(reading.metadata))
        said = (reading.media_type, reading.language, metadata, reading.pages, reading.characters)
    await connection.execute(DESCRIBE, *_id(key), state, *bytes_read, *said, chunks)


async def _insert_chunks(connection: asyncpg.Connection, key: DocumentKey, folder: Path) -> int | None:
    """Insert the chunks of a folder and return how many; `None` when nothing has been cut there."""
    if not (folder / CHUNKS).exists():
        return None
    inserted = 0
    async for chunks in _batches(read_lines(folder / CHUNKS, Chunk)):
        await connection.execute(INSERT_CHUNKS, *_id(key), *_columns_of_chunks(chunks))
        inserted += len(chunks)
    return inserted


def _columns_of_pages(pages: Sequence[Page]) -> tuple[list[Any], ...]:
    return (
        [page.number for page in pages],
        [storable(page.text) for page in pages],
        [page.origin for page in pages],
        [page.ocr_reason for page in pages],
        [page.confidence for page in pages],
    )


def _columns_of_chunks(chunks: Sequence[Chunk]) -> tuple[list[Any], ...]:
    return (
        [chunk.number for chunk in chunks],
        [storable(chunk.text) for chunk in chunks],
        [chunk.tokens for chunk in chunks],
        [chunk.first_page for chunk in chunks],
        [chunk.last_page for chunk in chunks],
        [json.dumps(storable_json(chunk.headings)) for chunk in chunks],
    )


async def _batches(lines: Iterator[L]) -> AsyncIterator[list[L]]:
    """Read lines in a thread, for parsing a large page takes milliseconds."""
    while batch := await asyncio.to_thread(lambda: list(islice(lines, BATCH))):
        yield batch
