"""The ingestion-worker: a loop for each of its queues that is on, over one isolation and one record of documents."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from ingestion_worker.bookbinder import Bookbinder
from ingestion_worker.embedding import TIME_LIMIT_SECONDS, EmbeddingHandler
from ingestion_worker.embeddings.local import ModelMissing
from ingestion_worker.embeddings.opened import GuardedEmbedder, opened_embedder
from ingestion_worker.extraction import Extraction
from ingestion_worker.fetching.fetch import opened_fetcher
from ingestion_worker.following import Following
from ingestion_worker.isolation.isolation import opened_isolation
from ingestion_worker.jobs import EmbeddingGeneration, OcrProcessing, TextExtraction
from ingestion_worker.ocr.engine import opened_engine
from ingestion_worker.pipeline import Pipeline
from ingestion_worker.recognition import Recognition
from ingestion_worker.scanning import opened_scanner
from ingestion_worker.settings import IngestionSettings
from ingestion_worker.store.documents import PostgresDocuments
from ingestion_worker.store.objects import ObjectDocuments
from ingestion_worker.store.stored import StoredDocuments
from ingestion_worker.store.vectors import VectorsMissing, VectorStore
from worker_runtime.postgres import BY_INDEX, Database, require_postgres
from worker_runtime.settings import SettingsError
from worker_runtime.storage import ObjectStore
from worker_runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ingestion_worker.isolation.isolation import Isolation
    from ingestion_worker.records import Documents
    from worker_runtime.loops import Loop
    from worker_runtime.runtime import Runtime

__all__ = ["IngestionWorker"]

# A document of thousands of pages takes OCR hours; each page has its own time limit, and those done are kept.
OCR_SECONDS = 6 * 3600.0
# Requests of one call to an embedding service, at most.
PROBES = 4
# Beside the time limits of a job's stages: the wait for a free process, and the database.
SLACK_SECONDS = 600.0
# For documents; opened when they are needed.
MOST_CONNECTIONS = 8


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
            if settings.database_url is not None:
                # A connection of its own for the question whether the server is there.
                await require_postgres(runtime, await opened.enter_async_context(connection_of(runtime)))
            loops: list[Loop] = []
            if settings.enable_text_extraction or settings.enable_ocr:
                loops += await opened.enter_async_context(opened_reading(runtime))
            if settings.enable_embeddings:
                loops.append(await opened.enter_async_context(opened_embedding(runtime)))
            yield loops


@asynccontextmanager
async def opened_reading(runtime: Runtime[IngestionSettings]) -> AsyncIterator[Sequence[Loop]]:
    """Open what documents are read with, and yield the loops of the queues that read."""
    settings, metrics = runtime.settings, runtime.metrics.documents
    async with AsyncExitStack() as opened:
        documents = await opened.enter_async_context(opened_documents(runtime))
        isolation = await opened.enter_async_context(opened_isolation(settings, runtime.metrics.isolation))
        fetcher = await opened.enter_async_context(opened_fetcher(settings))
        scanner = await opened.enter_async_context(opened_scanner(settings))
        pipeline = Pipeline(settings, fetcher, scanner, isolation)
        following = Following(
            runtime.queue("OCR_PROCESSING") if settings.enable_ocr else None,
            runtime.queue("EMBEDDING_GENERATION") if settings.enable_embeddings else None,
        )
        loops: list[Loop] = []
        if settings.enable_text_extraction:
            extraction = Extraction(pipeline, documents, following, metrics)
            loops.append(
                runtime.consumer("TEXT_EXTRACTION", TextExtraction, extraction, time_limit_seconds=seconds(settings))
            )
        if settings.enable_ocr:
            engine = await opened.enter_async_context(opened_engine(settings, isolation, runtime.breaker))
            bookbinder = opened_bookbinder(settings, isolation, opened) if settings.ocr_searchable_pdf else None
            recognition = Recognition(pipeline, documents, following, engine, metrics, settings.ocr_dpi, bookbinder)
            loops.append(runtime.consumer("OCR_PROCESSING", OcrProcessing, recognition, time_limit_seconds=OCR_SECONDS))
        yield loops


def opened_bookbinder(settings: IngestionSettings, isolation: Isolation, opened: AsyncExitStack) -> Bookbinder:
    """Return what makes searchable PDFs; its way to the object store is closed with `opened`."""
    store = ObjectStore(settings.storage_url)
    opened.callback(store.close)
    return Bookbinder(isolation, store)


def seconds(settings: IngestionSettings) -> float:
    """Return the time limit of an extraction: fetching, scanning, reading and cutting, each with its own."""
    stages = settings.fetch_timeout_ms + settings.clamav_timeout_ms + 2 * settings.document_timeout_ms
    return stages / 1000 + SLACK_SECONDS


@asynccontextmanager
async def opened_embedding(runtime: Runtime[IngestionSettings]) -> AsyncIterator[Loop]:
    """Open the model, or the way to it, and yield the loop that embeds. Raises `SettingsError` where that cannot be."""
    async with AsyncExitStack() as opened:
        database = await opened.enter_async_context(connection_of(runtime, **BY_INDEX))
        store = VectorStore(database)
        try:
            await store.refuse_without_vectors()
            embedder = await opened.enter_async_context(opened_embedder(runtime.settings))
        except (ModelMissing, VectorsMissing) as error:
            raise SettingsError([f"ENABLE_EMBEDDINGS=true: {error}"]) from error
        if embedder.provider != "local":
            embedder = GuardedEmbedder(
                embedder, runtime.breaker(embedder.provider, PROBES * runtime.settings.embedding_timeout_ms / 1000)
            )
        handler = EmbeddingHandler(store, embedder, runtime.metrics.embedding)
        yield runtime.consumer(
            "EMBEDDING_GENERATION", EmbeddingGeneration, handler, time_limit_seconds=TIME_LIMIT_SECONDS
        )


def connection_of(runtime: Runtime[IngestionSettings], **settings: str) -> Database:
    """Return a connection of its own for one kind of work."""
    if runtime.settings.database_url is None:
        raise ValueError("only asked for where the settings demand a database")
    return Database(runtime.settings.database_url.get_secret_value(), application=runtime.worker, settings=settings)


@asynccontextmanager
async def opened_documents(runtime: Runtime[IngestionSettings]) -> AsyncIterator[Documents]:
    """Open the record in PostgreSQL, or in the object store where there is no DATABASE_URL."""
    settings = runtime.settings
    async with AsyncExitStack() as opened:
        if settings.database_url is None:
            store = ObjectStore(settings.storage_url)
            opened.callback(store.close)
            yield StoredDocuments(ObjectDocuments(store), store)
            return
        connections = [
            await opened.enter_async_context(connection_of(runtime))
            for _ in range(min(MOST_CONNECTIONS, 2 * settings.queue_concurrency))
        ]
        yield PostgresDocuments(*connections)
