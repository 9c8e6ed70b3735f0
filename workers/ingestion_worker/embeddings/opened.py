"""The embedder that the settings name, and the circuit around one that is a service."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from ingestion_worker.embeddings.embedder import Blame, NotEmbedded
from ingestion_worker.embeddings.local import opened_local
from ingestion_worker.embeddings.openai import opened_openai
from worker_runtime.breaker import CircuitOpen
from worker_runtime.outcome import Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from ingestion_worker.embeddings.embedder import Embedder, Vector
    from ingestion_worker.embeddings.settings import EmbeddingSettings
    from worker_runtime.breaker import Breaker, Call

__all__ = ["PROVIDERS", "GuardedEmbedder", "opened_embedder"]

# A further provider is a line here, and a value of EMBEDDING_PROVIDER.
PROVIDERS: dict[str, Callable[[EmbeddingSettings], AbstractAsyncContextManager[Embedder]]] = {
    "local": lambda _: opened_local(),
    "openai": opened_openai,
}


@asynccontextmanager
async def opened_embedder(settings: EmbeddingSettings) -> AsyncIterator[Embedder]:
    """Open the embedder of EMBEDDING_PROVIDER. Raises `ModelMissing`."""
    async with PROVIDERS[settings.embedding_provider](settings) as embedder:
        yield embedder


class GuardedEmbedder:
    """See `Embedder`: another one, left alone while its circuit is open."""

    def __init__(self, embedder: Embedder, breaker: Breaker) -> None:
        self._embedder = embedder
        self._breaker = breaker
        self.provider, self.name, self.model = embedder.provider, embedder.name, embedder.model

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """See `Embedder`."""
        try:
            async with self._breaker.guard() as call:
                return await self._judged(texts, call)
        except CircuitOpen as circuit:
            reason = f"the circuit of {circuit.dependency} is open"
            raise NotEmbedded(Hold("CIRCUIT_OPEN", reason, circuit.seconds), Blame.NOBODY) from circuit

    async def _judged(self, texts: Sequence[str], call: Call) -> list[Vector]:
        try:
            return await self._embedder.embed(texts)
        except NotEmbedded as error:
            match error.blame:
                case Blame.PROVIDER:
                    call.failed(error.outcome.reason)
                case Blame.CONFIGURATION:
                    call.failed_for_good(error.outcome.reason)
                case Blame.NOBODY:
                    pass
            raise
