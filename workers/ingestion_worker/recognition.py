"""The handler of `ocr-processing`: the pictures of a document's pages become text."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from ingestion_worker.attempt import Ending, Stopwatch
from ingestion_worker.document import PAGES, Page, read_lines
from ingestion_worker.extraction import result_of
from ingestion_worker.fetching.failed import FetchFailed
from ingestion_worker.jobs import ExtractionOptions
from ingestion_worker.ocr.recognition import FAILED, PageOrder, Summary, recognise_pages
from ingestion_worker.pipeline import Wish, shown_source
from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.progress import Progress
from ingestion_worker.records import Claim, Content, DocumentKey, Known, Origin
from worker_runtime.outcome import DeadLetter, Done

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ingestion_worker.bookbinder import Bookbinder
    from ingestion_worker.fetching.fetch import Fetched
    from ingestion_worker.following import Following
    from ingestion_worker.jobs import OcrProcessing
    from ingestion_worker.ocr.engine import OcrEngine
    from ingestion_worker.pipeline import Pipeline
    from ingestion_worker.records import Documents, Reading
    from worker_runtime.document_metrics import DocumentMetrics
    from worker_runtime.job import Job
    from worker_runtime.outcome import Outcome

__all__ = ["Recognition"]

CHANGED = "sourceUrl: the document there is no longer the one that was read: send it to text-extraction again"


class Recognition:
    """Reads pictures of pages. Each is kept once it is read, so that those of a killed worker are not read again."""

    def __init__(
        self,
        pipeline: Pipeline,
        documents: Documents,
        following: Following,
        engine: OcrEngine,
        metrics: DocumentMetrics,
        dpi: int,
        bookbinder: Bookbinder | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._documents = documents
        self._following = following
        self._engine = engine
        self._metrics = metrics
        self._dpi = dpi
        self._bookbinder = bookbinder
        self._ending = Ending(documents, metrics, "ocr-processing")

    async def __call__(self, job: Job[OcrProcessing]) -> Outcome:
        """Handle a job."""
        asked = job.payload
        key = DocumentKey(asked.tenant_id, asked.document_id)
        claim = Claim(Origin(shown_source(asked.source_url)), content_of(asked))
        return await self._ending.of(self._recognise(job, key, claim), key, claim, job.attempt)

    async def _recognise(self, job: Job[OcrProcessing], key: DocumentKey, claim: Claim) -> Outcome:
        asked, watch = job.payload, Stopwatch(self._metrics)
        before = await self._documents.begin(key, claim)
        if claim.content and before and before.state == "read":
            # An earlier attempt came as far as that, and perhaps no further.
            return await self._went_on(asked, key, claim.content, before, watch, Summary())
        async with self._pipeline.isolation.working_folder() as folder:
            fetched = await self._pipeline.fetch(asked.source_url, folder, watch)
            content, reading = await self._read(asked, fetched, key, claim, before, folder, watch)
            # A PDF of all pages needs all of them read within one folder.
            anew = self._bookbinder is not None
            pages = await self._documents.pictures(key, claim, asked.pages, folder, anew=anew)
            if missing := set(asked.pages or ()) - {page.number for page in pages}:
                raise DocumentError(Problem.UNSUPPORTED, f"pages: it has no page {min(missing)}, only {reading.pages}")
            with watch.timed("ocr"):
                summary = await self._read_pictures(job, pages, reading, key, claim, folder)
            if self._bookbinder is not None and summary.read:
                with watch.timed("store"):
                    await self._bookbinder.bind(key, reading, asked.password, folder)
            reading, chunks = await self._cut(reading, key, claim, folder, watch)
        return await self._went_on(asked, key, content, Known("read", content, reading, chunks), watch, summary)

    async def _went_on(
        self, asked: OcrProcessing, key: DocumentKey, content: Content, known: Known, watch: Stopwatch, summary: Summary
    ) -> Done:
        """Have the next stage go on, and say what there is."""
        if known.embedding_model is None:
            await self._following.embed(key, content, asked=asked.generate_embeddings)
        return Done(
            result_of(key, known, watch)
            | {"ocrPages": summary.read, "failedPages": summary.failed, "warnings": sorted(summary.warnings)}
        )

    async def _read(
        self,
        asked: OcrProcessing,
        fetched: Fetched,
        key: DocumentKey,
        claim: Claim,
        before: Known | None,
        folder: Path,
        watch: Stopwatch,
    ) -> tuple[Content, Reading]:
        """Return what an extraction made of these bytes, or do its work first."""
        if before and before.content and before.reading and before.content.sha256 == fetched.sha256:
            return before.content, before.reading
        if claim.content is not None:
            raise FetchFailed(DeadLetter("SOURCE_CHANGED", CHANGED))
        wish = Wish(None, asked.language, ExtractionOptions(password=asked.password))
        content = self._pipeline.content(fetched, wish)
        reading, _ = await self._pipeline.read(fetched, wish, folder, watch, lambda _done, _total: None)
        await self._documents.keep(key, claim, content, reading, folder)
        return content, reading

    async def _read_pictures(
        self,
        job: Job[OcrProcessing],
        pages: Sequence[Page],
        reading: Reading,
        key: DocumentKey,
        claim: Claim,
        folder: Path,
    ) -> Summary:
        password = job.payload.password
        order = PageOrder(
            reading.media_type, self._dpi, job.payload.language, password.get_secret_value() if password else None
        )
        failed: list[Page] = []
        async with Progress(job, "ocr") as progress:
            done = 0

            async def keep(page: Page) -> None:
                nonlocal done
                if (page.ocr_reason or "").startswith(FAILED):
                    failed.append(page)
                else:
                    await self._documents.keep_page(key, claim, page)
                    self._metrics.pages(page.origin, 1)
                done += 1
                progress.report(done, len(pages))

            try:
                summary = await recognise_pages(self._pipeline.isolation, self._engine, folder, pages, order, keep)
            except DocumentError:
                if len(failed) < len(pages) or not await self._has_text(key, claim, folder):
                    raise
                # What earlier attempts read, or what is no picture, is worth having without these pages.
                summary = Summary(failed=Counter(str(page.ocr_reason).removeprefix(FAILED) for page in failed))
        # Not before: another attempt, if there has to be one, tries them again.
        for page in failed:
            await self._documents.keep_page(key, claim, page)
        return summary

    async def _has_text(self, key: DocumentKey, claim: Claim, folder: Path) -> bool:
        await self._documents.export_pages(key, claim, folder)
        return await asyncio.to_thread(has_text, folder / PAGES)

    async def _cut(
        self, reading: Reading, key: DocumentKey, claim: Claim, folder: Path, watch: Stopwatch
    ) -> tuple[Reading, int]:
        await self._documents.export_pages(key, claim, folder)
        chunks, reading = await self._pipeline.chunk_and_describe(reading, folder, watch)
        with watch.timed("store"):
            await self._documents.finish(key, claim, reading, folder)
        return reading, chunks


def content_of(asked: OcrProcessing) -> Content | None:
    """Return what the extraction read that this job follows; `None` for a job that somebody else made."""
    if asked.content is None or asked.pages is not None:
        return None
    return Content(bytes.fromhex(asked.content.sha256), asked.content.bytes, asked.content.pipeline)


def has_text(path: Path) -> bool:
    """Tell whether any page of a file has text."""
    return any(page.text for page in read_lines(path, Page))
