"""The first run's documents: a PDF, a scanned letter and a DOCX become text, and questions find their answers there."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ingestion_worker.embeddings.local import opened_local
from ingestion_worker.store.vectors import VectorStore
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.postgres import Database
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingestion_worker.store.vectors import Found

TENANT = "first-run"
SAMPLES = Path(__file__).with_name("samples")
# What is asked, and the file that knows.
QUESTIONS = {
    "How long before moving out must I tell the landlord?": "lease.pdf",
    "What happened in the kitchen?": "scan.pdf",
    "How much is the parking space?": "offer.docx",
}
POLL_SECONDS = 0.05
# The same files may be known from an earlier run, and then nothing is done again.
READ = """
SELECT document_id, pages, language, extract(epoch FROM greatest(embedded_at, changed_at))::float8 AS ready_at,
       coalesce((SELECT string_agg(DISTINCT origin, '+') FROM document_page AS page
                  WHERE (page.tenant_id, page.document_id) = (document.tenant_id, document.document_id)), '') AS origin
  FROM document
 WHERE tenant_id = $1 AND document_id = $2 AND embedded_at IS NOT NULL AND changed_at >= to_timestamp($3)
"""


@dataclass(frozen=True)
class Document:
    """A file that a producer wanted read, and what has become of it; times are since the epoch."""

    name: str
    question: str
    queued_at: float
    pages: int = 0
    origin: str = ""
    language: str = ""
    ready_at: float | None = None
    answered_by: str = ""
    place: str = ""

    @property
    def document_id(self) -> str:
        """Its id: the same in every run."""
        return self.name.partition(".")[0]

    @property
    def is_complete(self) -> bool:
        """Whether it is found by the question that it answers."""
        return self.answered_by == self.document_id

    @property
    def stopped_at(self) -> str:
        """Why it is not complete, in a few words."""
        if self.ready_at is None:
            return "it was not read and embedded in time; `intelliflow documents list` says how far it got"
        return f"{self.question!r} was answered by {self.answered_by or 'nothing'}"


def queue_documents(redis_url: str, objects: Path) -> list[Document]:
    """Put the files into the object store, and a job for each on the queue."""
    objects.mkdir(parents=True, exist_ok=True)
    documents = [Document(name, question, time.time()) for question, name in QUESTIONS.items()]
    for document in documents:
        shutil.copyfile(SAMPLES / document.name, objects / document.name)
    asyncio.run(_queue(redis_url, documents))
    return documents


async def _queue(redis_url: str, documents: Sequence[Document]) -> None:
    redis = RedisConnection(redis_url, client_name="first-run")
    await redis.open()
    try:
        queue = JobQueue(redis, QueueName(os.environ.get("QUEUE_PREFIX") or "intelliflow", "text-extraction"))
        await queue.add_bulk(
            [
                NewJob("text-extraction", {"documentId": one.document_id, "tenantId": TENANT, "sourceUrl": one.name})
                for one in documents
            ]
        )
    finally:
        await redis.close()


def found_documents(database_url: str, documents: Sequence[Document], *, seconds: float) -> list[Document]:
    """Wait up to `seconds` for them to be embedded, and ask each one's question."""
    return asyncio.run(_found_documents(database_url, documents, time.monotonic() + seconds))


async def _found_documents(database_url: str, documents: Sequence[Document], deadline: float) -> list[Document]:
    async with Database(database_url) as database:
        told = [await _read(database, one) for one in documents]
        while any(one.ready_at is None for one in told) and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            told = [await _read(database, one) for one in documents]
        return await _asked(database, told)


async def _read(database: Database, document: Document) -> Document:
    async with database.connected() as connection:
        row = await connection.fetchrow(READ, TENANT, document.document_id, document.queued_at)
    if row is None:
        return document
    return replace(document, **{name: row[name] for name in ("pages", "origin", "language", "ready_at")})


async def _asked(database: Database, documents: Sequence[Document]) -> list[Document]:
    store = VectorStore(database)
    async with opened_local() as embedder:
        vectors = await embedder.embed([one.question for one in documents])
        found = [await store.search(TENANT, embedder.model, vector, 1) for vector in vectors]
    return [_answered(one, best[0]) if best else one for one, best in zip(documents, found, strict=True)]


def _answered(document: Document, best: Found) -> Document:
    pages = f"{best.first_page}" if best.first_page == best.last_page else f"{best.first_page}-{best.last_page}"
    return replace(document, answered_by=best.document_id, place=f"{best.document_id}, p. {pages} ({best.score:.2f})")


def table(documents: Sequence[Document]) -> str:
    """One line a document; times are milliseconds since it was queued."""
    layout = "{:<11} {:>5} {:<10} {:<8} {:>8}  {:<53} {}".format
    lines = [layout("DOCUMENT", "PAGES", "READ BY", "LANGUAGE", "READY", "QUESTION", "FOUND IN")]
    for one in documents:
        ready = "-" if one.ready_at is None else f"+{round((one.ready_at - one.queued_at) * 1000)}"
        read_by = one.origin.replace("text", "parser")
        lines.append(layout(one.name, one.pages, read_by, one.language, ready, one.question, one.place or "-").rstrip())
    return "\n".join(lines)
