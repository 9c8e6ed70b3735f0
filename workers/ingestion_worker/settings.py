"""What the ingestion-worker reads beside what every worker does: what each part needs is beside the part."""

from __future__ import annotations

from pydantic import Field

from ingestion_worker.embeddings.settings import EmbeddingSettings
from ingestion_worker.fetching.settings import FetchingSettings
from ingestion_worker.isolation.settings import IsolationSettings
from ingestion_worker.ocr.settings import OcrSettings
from worker_runtime.settings import HealthPort  # noqa: TC001  pydantic reads annotations

__all__ = ["IngestionSettings"]


class IngestionSettings(FetchingSettings, IsolationSettings, OcrSettings, EmbeddingSettings):
    """Ingestion."""

    health_port: HealthPort = 3101
    enable_text_extraction: bool = Field(default=True, description="extract text from documents")
