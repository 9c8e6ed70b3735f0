"""Any service that speaks `POST /embeddings` as OpenAI does: texts in, vectors out, in batches."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingestion_worker.embeddings.embedder import VectorUnusable, unit_vector
from ingestion_worker.embeddings.openai_replies import (
    FAILURES,
    failed,
    of_another_length,
    refused,
    unreadable,
    vectors_in,
)
from ingestion_worker.embeddings.wordpiece import uncased
from worker_runtime.egress import trusted_egress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from ingestion_worker.embeddings.embedder import Vector
    from ingestion_worker.embeddings.settings import EmbeddingSettings
    from worker_runtime.egress import EgressClient

__all__ = ["OpenAiEmbedder", "Service", "opened_openai"]

# Servers refuse more texts than this by default; one request is answered before a job's time is over.
MOST_TEXTS, MOST_TOKENS = 32, 8_192
# As many vectors of as many numbers as there may be, written out.
LARGEST_REPLY = 16 * 1_048_576


@dataclass(frozen=True, slots=True)
class Service:
    """An account at a service. `dimensions`: how long vectors shall be, where not as long as the model makes them."""

    base_url: str
    model: str
    api_key: str | None = None
    dimensions: int | None = None
    timeout_seconds: float = 30.0


class OpenAiEmbedder:
    """See `Embedder`. Every batch is one request; nothing is sent twice."""

    provider = "openai"

    def __init__(self, http: EgressClient, service: Service, now: Callable[[], float] = time.time) -> None:
        self._http = http
        self._service = service
        self._now = now
        # Of the vectors so far: a model's never change theirs.
        self._length: int | None = None
        self.name = service.model
        # Shortened vectors are another model's: they cannot be compared with whole ones.
        self.model = f"{service.model}/{service.dimensions}" if service.dimensions else service.model

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """See `Embedder`."""
        found: list[Vector] = []
        for batch in batches(texts):
            found += await self._asked(batch)
        return found

    async def _asked(self, texts: Sequence[str]) -> list[Vector]:
        service = self._service
        asked: dict[str, Any] = {"model": service.model, "input": list(texts), "encoding_format": "base64"}
        if service.dimensions:
            asked["dimensions"] = service.dimensions
        url = f"{service.base_url.rstrip('/')}/embeddings"
        try:
            reply = await self._http.post(url, json.dumps(asked).encode(), self._headers, service.timeout_seconds)
        except FAILURES as failure:
            raise failed(failure) from failure
        if reply.status != 200 or not reply.whole:  # noqa: PLR2004  nothing else brings vectors
            raise refused(reply, self._now())
        return self._usable(vectors_in(reply.body, len(texts)))

    @property
    def _headers(self) -> dict[str, str]:
        key = self._service.api_key
        return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def _usable(self, vectors: Sequence[Sequence[float]]) -> list[Vector]:
        wanted = self._service.dimensions or self._length or len(vectors[0])
        if wrong := {len(vector) for vector in vectors} - {wanted}:
            raise of_another_length(max(wrong), wanted)
        try:
            found = [unit_vector(vector) for vector in vectors]
        except VectorUnusable as error:
            raise unreadable(str(error)) from error
        self._length = wanted
        return found


@asynccontextmanager
async def opened_openai(settings: EmbeddingSettings) -> AsyncIterator[OpenAiEmbedder]:
    """Open the service that the settings name; nothing is asked of it yet."""
    service = Service(
        settings.embedding_base_url or "",
        settings.embedding_model or "",
        settings.embedding_api_key.get_secret_value() if settings.embedding_api_key else None,
        settings.embedding_dimensions,
        settings.embedding_timeout_ms / 1000,
    )
    async with trusted_egress(kept_bytes=LARGEST_REPLY) as http:
        yield OpenAiEmbedder(http, service)


def batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the texts in order, in as large groups as one request may hold."""
    batch: list[str] = []
    tokens = 0
    for text in texts:
        more = uncased().count(text)
        if batch and (len(batch) >= MOST_TEXTS or tokens + more > MOST_TOKENS):
            yield batch
            batch, tokens = [], 0
        batch.append(text)
        tokens += more
    if batch:
        yield batch
