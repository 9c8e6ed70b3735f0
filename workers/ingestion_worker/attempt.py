"""One attempt at a document: what every way to fail means for its job and for the record."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from ingestion_worker.fetching.failed import FetchFailed
from ingestion_worker.ocr.engine import EngineFailed
from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.records import LostClaim, RecordsUnavailable
from worker_runtime.outcome import DeadLetter, Defer, Done, Outcome, Retry
from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from ingestion_worker.records import Claim, DocumentKey, Documents
    from worker_runtime.document_metrics import DocumentMetrics

__all__ = ["Ending", "Stopwatch"]

log = structlog.get_logger()

OUTAGE_SECONDS = 2.0
STAGES = ("fetch", "scan", "extract", "chunk", "ocr", "store")
ORIGINS = ("text", "ocr", "none")


class Ending:
    """Says how attempts of one queue ended, to the job, to the record and to whoever counts."""

    def __init__(self, documents: Documents, metrics: DocumentMetrics, queue: str) -> None:
        self._documents = documents
        self._metrics = metrics
        self._queue = queue
        metrics.announce(queue, ("read", "unchanged", "superseded", *Problem), STAGES, ORIGINS)

    async def of(self, work: Awaitable[Outcome], key: DocumentKey, claim: Claim, attempt: int) -> Outcome:
        """Return how the work ended; what is wrong with the document is written down beside it."""
        try:
            outcome = await self._ended(work, key, claim, attempt)
        except LostClaim:
            log.info("document_superseded", documentId=key.document_id)
            outcome = Done({"documentId": key.document_id, "superseded": True})
        except RecordsUnavailable as error:
            outcome = Defer("STATE_UNAVAILABLE", str(error), OUTAGE_SECONDS)
        except (RedisUnavailable, RedisError) as error:
            # The document is kept; the job of the next stage is added when this one is tried again.
            outcome = Defer("STATE_UNAVAILABLE", f"Redis: {error}", OUTAGE_SECONDS)
        self._metrics.ended(self._queue, label_of(outcome))
        return outcome

    async def _ended(self, work: Awaitable[Outcome], key: DocumentKey, claim: Claim, attempt: int) -> Outcome:
        try:
            return await work
        except DocumentError as error:
            outcome: Outcome = error.outcome(attempt)
        except (FetchFailed, EngineFailed) as error:
            outcome = error.outcome
        if isinstance(outcome, DeadLetter | Retry):
            final = isinstance(outcome, DeadLetter)
            await self._documents.note_problem(key, claim, outcome.code, outcome.reason, final=final)
        return outcome


def label_of(outcome: Outcome) -> str:
    """Return the class of an outcome for the metrics."""
    if not isinstance(outcome, Done):
        return outcome.code
    flags = ("superseded", "unchanged")
    return next((flag for flag in flags if outcome.result.get(flag)), "read")


@dataclass(slots=True)
class Stopwatch:
    """How long each stage of one attempt took."""

    metrics: DocumentMetrics
    milliseconds: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what runs within to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self.metrics.stage(stage, seconds)
            self.milliseconds[stage] = self.milliseconds.get(stage, 0) + round(seconds * 1000)
