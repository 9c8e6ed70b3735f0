"""What the ingestion-worker reads beside what every worker does: what each part needs is beside the part."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ingestion_worker.embeddings.settings import EmbeddingSettings
from ingestion_worker.fetching.settings import FetchingSettings
from ingestion_worker.isolation.container import processors
from ingestion_worker.isolation.settings import IsolationSettings
from ingestion_worker.ocr.settings import OcrSettings
from worker_runtime.settings import DefaultIs, HealthPort, ShownAs

__all__ = ["IngestionSettings"]


class IngestionSettings(FetchingSettings, IsolationSettings, OcrSettings, EmbeddingSettings):
    """Ingestion."""

    health_port: HealthPort = 3101
    queue_concurrency: Annotated[
        int, Field(ge=1, le=1000), ShownAs("concurrency"), DefaultIs("the number of processors")
    ] = Field(processors(), description="jobs in flight per queue and process")
    enable_text_extraction: bool = Field(default=True, description="extract text from documents")
    document_max_pages: int = Field(10_000, ge=1, le=100_000, description="most pages of a document")
    document_max_characters: int = Field(
        20_000_000, ge=1, description="most characters of text in a document, all pages together"
    )

    def stages(self) -> dict[str, bool]:
        """Return each queue of this worker by its key, and whether it is worked."""
        return {
            "TEXT_EXTRACTION": self.enable_text_extraction,
            "OCR_PROCESSING": self.enable_ocr,
            "EMBEDDING_GENERATION": self.enable_embeddings,
        }

    def warnings(self) -> list[str]:
        """See `WorkerSettings`."""
        found = super().warnings()
        if self.database_url is None:
            found.insert(0, "no DATABASE_URL: what is read goes to STORAGE_URL, and nothing can be searched")
        if not any(self.stages().values()):
            found.append("no stage is on, so this worker reads nothing: set ENABLE_TEXT_EXTRACTION=true")
        return found
