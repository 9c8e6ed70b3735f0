"""The handler of `embedding-generation`: gives every piece of a document a vector.

What the tenant's same text has got before is taken from there; the rest is computed and kept batch by batch, so that a
job that is interrupted goes on where it was. The document counts as embedded when each of its pieces, as it is then,
has one.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ingestion_worker.embeddings.embedder import NotEmbedded
from worker_runtime.outcome import DeadLetter, Defer, Done
from worker_runtime.postgres import DatabaseUnavailable
from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ingestion_worker.embeddings.embedder import Embedder, Vector
    from ingestion_worker.jobs import EmbeddingGeneration
    from ingestion_worker.store.vectors import ChunkText, VectorStore
    from worker_runtime.document_metrics import EmbeddingMetrics
    from worker_runtime.job import Job
    from worker_runtime.outcome import Outcome

__all__ = ["TIME_LIMIT_SECONDS", "EmbeddingHandler"]

# A thousand pages at the speed of one core.
TIME_LIMIT_SECONDS = 1800.0
# Pieces between two reports of progress; what a crash loses.
BATCH = 64
DATABASE_PAUSE_SECONDS = 1.0
CHANGED_PAUSE_SECONDS = 5.0


@dataclass(slots=True)
class Tally:
    """What was done for a document."""

    chunks: int
    began: float = field(default_factory=time.perf_counter)
    embedded: int = 0
    cached: int = 0
    dims: int | None = None

    @property
    def done(self) -> int:
        """Pieces that have a vector."""
        return self.embedded + self.cached


class EmbeddingHandler:
    """Handles the jobs of the queue."""

    def __init__(self, store: VectorStore, embedder: Embedder, metrics: EmbeddingMetrics) -> None:
        self._store = store
        self._embedder = embedder
        self._metrics = metrics
        metrics.announce(embedder.provider)

    async def __call__(self, job: Job[EmbeddingGeneration]) -> Outcome:
        """Embed the job's document, or say why not, or not now."""
        if wrong := self._of_another_model(job.payload.model):
            return wrong
        try:
            return await self._handled(job)
        except NotEmbedded as error:
            return error.outcome
        except DatabaseUnavailable as error:
            return Defer("STATE_UNAVAILABLE", f"PostgreSQL: {error}", DATABASE_PAUSE_SECONDS)

    def _of_another_model(self, asked: str | None) -> DeadLetter | None:
        model = self._embedder.model
        if asked in {None, model, self._embedder.name}:
            return None
        return DeadLetter("MODEL_UNKNOWN", f"the job asks for the model {asked}, and this worker has {model}")

    async def _handled(self, job: Job[EmbeddingGeneration]) -> Outcome:
        document = (job.payload.tenant_id, job.payload.document_id)
        count = await self._store.count(*document)
        if count is None:
            return DeadLetter("NOT_FOUND", "the tenant has no document with this id: was it deleted?")
        tally = Tally(count)
        async for chunks in self._chunks(document):
            await self._embed(document, chunks, tally)
            await _report(job, tally)
        if not await self._store.complete(*document, self._embedder.model):
            return Defer("DOCUMENT_CHANGED", "the document was read anew meanwhile", CHANGED_PAUSE_SECONDS)
        return Done(self._result(job.payload, tally))

    async def _chunks(self, document: tuple[str, str]) -> AsyncIterator[list[ChunkText]]:
        after = 0
        while chunks := await self._store.chunks(*document, after, BATCH):
            yield chunks
            after = chunks[-1].number

    async def _embed(self, document: tuple[str, str], chunks: Sequence[ChunkText], tally: Tally) -> None:
        known = await self._store.reuse(*document, self._embedder.model, chunks)
        missing = [chunk for chunk in chunks if chunk.number not in known]
        tally.cached += len(known)
        tally.dims = next(iter(known.values()), tally.dims)
        self._metrics.known(self._embedder.provider, len(known))
        if missing:
            vectors = await self._computed(missing)
            await self._store.add(*document, self._embedder.model, vectors)
            tally.embedded += len(missing)
            tally.dims = len(vectors[missing[0]])

    async def _computed(self, chunks: Sequence[ChunkText]) -> dict[ChunkText, Vector]:
        """Compute each text once, however often it stands there."""
        texts = {chunk.text: chunk.tokens for chunk in chunks}
        began = time.perf_counter()
        vectors = dict(zip(texts, await self._embedder.embed(list(texts)), strict=True))
        took = time.perf_counter() - began
        self._metrics.computed(self._embedder.provider, len(texts), sum(texts.values()), took)
        return {chunk: vectors[chunk.text] for chunk in chunks}

    def _result(self, asked: EmbeddingGeneration, tally: Tally) -> dict[str, Any]:
        return {
            "documentId": asked.document_id,
            "chunks": tally.done,
            "embedded": tally.embedded,
            "cached": tally.cached,
            "model": self._embedder.model,
            "dims": tally.dims,
            "ms": round((time.perf_counter() - tally.began) * 1000),
        }


async def _report(job: Job[EmbeddingGeneration], tally: Tally) -> None:
    # For whoever watches; the work does not depend on it.
    with contextlib.suppress(RedisUnavailable, RedisError):
        await job.report_progress({"stage": "embedding", "done": tally.done, "total": tally.chunks})
