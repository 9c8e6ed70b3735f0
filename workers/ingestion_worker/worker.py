"""The ingestion-worker: a loop for each of its queues that is on, over one isolation and one record of documents."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from ingestion_worker.embedding import Embedding
from ingestion_worker.embeddings import opened_embedder
from ingestion_worker.extraction import Extraction
from ingestion_worker.fetching import opened_fetcher
from ingestion_worker.following import Following
from ingestion_worker.isolation import opened_isolation
from ingestion_worker.jobs import EmbeddingGeneration, OcrProcessing, TextExtraction
from ingestion_worker.ocr import opened_engine
from ingestion_worker.pipeline import Pipeline
from ingestion_worker.recognition import Recognition
from ingestion_worker.scanning import opened_scanner
from ingestion_worker.settings import IngestionSettings
from ingestion_worker.store import ObjectDocuments, PostgresDocuments, VectorStore
from worker_runtime.postgres import Database, require_postgres
from worker_runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker_runtime.loops import Loop
    from worker_runtime.runtime import Runtime

__all__ = ["IngestionWorker"]

# A document of thousands of pages takes OCR hours; each page has its own time limit, and those done are kept.
OCR_SECONDS = 6 * 3600.0
# Beside the time limits of a job's stages: the wait for a free process, and the database.
SLACK_SECONDS = 600.0


class IngestionWorker(Worker[IngestionSettings]):
    """Works `text-extraction`, `ocr-processing` and `embedding-generation`."""

    name = "ingestion-worker"
    settings_type = IngestionSettings
    queue_keys = ("TEXT_EXTRACTION", "OCR_PROCESSING", "EMBEDDING_GENERATION")

    @asynccontextmanager
    async def on_start(self, runtime: Runtime[IngestionSettings]) -> AsyncIterator[Sequence[Loop]]:
        """Open what the stages that are on need, and yield a loop for each; other queues are left alone."""
        settings = runtime.settings
        for queue, is_on in settings.stages().items():
            if not is_on:
                runtime.leave_alone(queue)
        async with AsyncExitStack() as opened:
            records = await opened_records(runtime, opened)
            loops: list[Loop] = []
            if settings.enable_text_extraction or settings.enable_ocr:
                loops += await reading_loops(runtime, records, opened)
            if settings.enable_embeddings:
                loops.append(await embedding_loop(runtime, records, opened))
            yield loops
