"""Who computes embeddings, and of what pieces of text."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from worker_runtime.settings import WorkerSettings
from worker_runtime.settings.kinds import Milliseconds, WebAddress  # noqa: TC001  pydantic reads annotations

__all__ = ["EmbeddingSettings"]

# PostgreSQL's index takes no longer vectors.
MOST_DIMENSIONS = 4_000


class EmbeddingSettings(WorkerSettings):
    """Embeddings."""

    enable_embeddings: bool = Field(default=False, description="make documents searchable by meaning")
    embedding_provider: Literal["local", "openai"] = Field("local", description="who computes embeddings")
    embedding_base_url: WebAddress | None = Field(
        None, description="address of an OpenAI-compatible service, as far as `/embeddings`"
    )
    embedding_model: str | None = Field(None, min_length=1, description="model of the embedding service")
    embedding_api_key: SecretStr | None = Field(None, description="key of the embedding service")
    embedding_dimensions: int | None = Field(
        None, ge=1, le=MOST_DIMENSIONS, description="numbers in a vector, if fewer are wanted than the model has"
    )
    embedding_timeout_ms: Milliseconds = Field(30_000, description="how long the embedding service may take")
    # 512 is what the local model can read, and what is sure to be fewer tokens than any service takes.
    embedding_chunk_tokens: int = Field(
        256, ge=32, le=512, description="most tokens of a piece of text that is searched"
    )
    embedding_chunk_overlap: int = Field(
        32, ge=0, le=256, description="most tokens that a piece repeats of the one before; at most half of a piece"
    )

    @model_validator(mode="after")
    def _embeddings_make_sense(self) -> Self:
        if wrong := [*self._chunk_contradictions(), *self._embedding_contradictions()]:
            raise ValueError("\n".join(wrong))
        return self

    def _chunk_contradictions(self) -> list[str]:
        if 2 * self.embedding_chunk_overlap <= self.embedding_chunk_tokens:
            return []
        most = self.embedding_chunk_tokens // 2
        return [
            f"EMBEDDING_CHUNK_OVERLAP={self.embedding_chunk_overlap} is more than half a piece; allowed: 0 to {most}"
        ]

    def _embedding_contradictions(self) -> list[str]:
        if not self.enable_embeddings:
            return []
        found = []
        if self.database_url is None:
            found.append("DATABASE_URL is not set, and ENABLE_EMBEDDINGS needs it: vectors are kept in PostgreSQL")
        if self.embedding_provider == "openai":
            found += [
                f"{name.upper()} is not set, and EMBEDDING_PROVIDER=openai needs it"
                for name in ("embedding_base_url", "embedding_model")
                if not getattr(self, name)
            ]
        return found

    def warnings(self) -> list[str]:
        """See `WorkerSettings`."""
        found = super().warnings()
        theirs = {"embedding_base_url", "embedding_model", "embedding_api_key", "embedding_dimensions"}
        if self.embedding_provider == "local" and (ignored := sorted(self.model_fields_set & theirs)):
            found.append(f"EMBEDDING_PROVIDER=local: {', '.join(ignored).upper()} ignored")
        return found
