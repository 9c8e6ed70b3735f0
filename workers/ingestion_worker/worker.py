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
