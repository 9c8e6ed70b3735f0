"""The handler of `text-extraction`: a document becomes pages, and its pages chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingestion_worker.attempt import Ending, Stopwatch
from ingestion_worker.pipeline import Wish, shown_source
from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.progress import Progress
from ingestion_worker.records import Claim, DocumentKey, Known, Origin
from worker_runtime.outcome import Done

if TYPE_CHECKING:
    from pathlib import Path

    from ingestion_worker.following import Following
    from ingestion_worker.jobs import TextExtraction
    from ingestion_worker.pipeline import Pipeline
    from ingestion_worker.records import Content, Documents, Reading
    from worker_runtime.document_metrics import DocumentMetrics
    from worker_runtime.job import Job
    from worker_runtime.outcome import Outcome

__all__ = ["Extraction"]


class Extraction:
    """Reads documents. The same bytes read by the same pipeline are not read again, whatever the document is called."""

    def __init__(
        self, pipeline: Pipeline, documents: Documents, following: Following, metrics: DocumentMetrics
    ) -> None:
        self._pipeline = pipeline
        self._documents = documents
        self._following = following
        self._metrics = metrics
        self._ending = Ending(documents, metrics, "text-extraction")

    async def __call__(self, job: Job[TextExtraction]) -> Outcome:
        """Handle a job."""
        asked = job.payload
        key = DocumentKey(asked.tenant_id, asked.document_id)
        claim = Claim(Origin(shown_source(asked.source_url), asked.user_id))
        return await self._ending.of(self._extract(job, key, claim), key, claim, job.attempt)

    async def _extract(self, job: Job[TextExtraction], key: DocumentKey, claim: Claim) -> Outcome:
        asked, watch = job.payload, Stopwatch(self._metrics)
        wish = Wish(asked.format, asked.language, asked.options)
        before = await self._documents.begin(key, claim)
        async with self._pipeline.isolation.working_folder() as folder:
            fetched = await self._pipeline.fetch(asked.source_url, folder, watch)
            content = self._pipeline.content(fetched, wish)
            if known := await self._known(key, claim, content, before, wish):
                return await self._went_on(key, content, asked, known, watch, unchanged=True)
            async with Progress(job, "extract") as progress:
                reading, pictures = await self._pipeline.read(fetched, wish, folder, watch, progress.report)
            known = await self._kept(key, claim, content, reading, pictures, folder, watch)
            return await self._went_on(key, content, asked, known, watch, unchanged=False)

    async def _known(
        self, key: DocumentKey, claim: Claim, content: Content, before: Known | None, wish: Wish
    ) -> Known | None:
        """Return what an earlier job made of the same content, if one did."""
        if before and before.content == content and before.state in ("read", "awaiting_ocr"):
            return before
        if wish.options.password is not None:
            # Whoever has the file need not have the password.
            return None
        return await self._documents.adopt(key, claim, content)

    async def _kept(
        self,
        key: DocumentKey,
        claim: Claim,
        content: Content,
        reading: Reading,
        pictures: int,
        folder: Path,
        watch: Stopwatch,
    ) -> Known:
        """Keep what was read: pages whose pictures will be read are cut into chunks only then."""
        waits = self._following.will_recognise(pictures)
        if pictures and not waits and not reading.characters:
            raise DocumentError(Problem.EMPTY, "its pages are pictures, which only OCR reads: set ENABLE_OCR=true")
        chunks = None if waits else await self._pipeline.chunk(folder, watch)
        with watch.timed("store"):
            await self._documents.keep(key, claim, content, reading, folder)
        self._metrics.pages("text", reading.pages - pictures)
        return Known("awaiting_ocr" if waits else "read", content, reading, chunks)

    async def _went_on(
        self,
        key: DocumentKey,
        content: Content,
        asked: TextExtraction,
        known: Known,
        watch: Stopwatch,
        *,
        unchanged: bool,
    ) -> Done:
        """Have the next stage go on, and say what there is."""
        if known.state == "awaiting_ocr":
            if self._following.will_recognise(1):
                await self._following.recognise(key, content, picture_job(asked, content))
        elif known.chunks and known.embedding_model is None:
            await self._following.embed(key, content, asked=asked.options.generate_embeddings)
        return Done(result_of(key, known, watch) | {"unchanged": unchanged})


def picture_job(asked: TextExtraction, content: Content) -> dict[str, Any]:
    """Return what a job of `ocr-processing` needs to know of the extraction that it follows."""
    options = asked.options
    fields = {
        "sourceUrl": asked.source_url,
        "language": asked.language,
        "password": options.password.get_secret_value() if options.password else None,
        "generateEmbeddings": options.generate_embeddings,
        "content": {"sha256": content.sha256.hex(), "bytes": content.size, "pipeline": content.pipeline},
    }
    return {name: value for name, value in fields.items() if value is not None}


def result_of(key: DocumentKey, known: Known, watch: Stopwatch) -> dict[str, Any]:
    """Return a job's result: small, and without a word of the document. What `warned` counts is in its metadata."""
    reading = known.reading
    said = (
        {
            "mediaType": reading.media_type,
            "language": reading.language,
            "pages": reading.pages,
            "characters": reading.characters,
            "warned": len(reading.metadata.get("warnings", ())),
        }
        if reading
        else {}
    )
    return {
        "documentId": key.document_id,
        "state": known.state,
        **said,
        "chunks": known.chunks,
        "milliseconds": watch.milliseconds,
    }
