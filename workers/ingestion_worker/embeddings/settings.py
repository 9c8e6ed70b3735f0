"""Who computes embeddings, and of what pieces of text."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from worker_runtime.settings import WorkerSettings
from worker_runtime.settings.kinds import WebAddress  # noqa: TC001  pydantic reads annotations

__all__ = ["EmbeddingSettings"]


class EmbeddingSettings(WorkerSettings):
    """Embeddings."""

    enable_embeddings: bool = Field(default=False, description="make documents searchable by meaning")
    embedding_provider: Literal["local", "openai"] = Field("local", description="who computes embeddings")
    embedding_base_url: WebAddress | None = Field(None, description="address of an OpenAI-compatible service")
    embedding_model: str | None = Field(None, description="model of the embedding service")
    embedding_api_key: SecretStr | None = Field(None, description="key of the embedding service")
