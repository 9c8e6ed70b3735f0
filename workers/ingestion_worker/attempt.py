"""One attempt at a document: what every way to fail means for its job and for the record."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from ingestion_worker.fetching import FetchFailed
from ingestion_worker.problem import DocumentError
from ingestion_worker.records import LostClaim, RecordsUnavailable
from ingestion_worker.scanning import ScannerUnavailable
from worker_runtime.outcome import DeadLetter, Defer, Done, Outcome, Retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from ingestion_worker.records import DocumentKey, Documents

__all__ = ["Stopwatch", "settled"]

log = structlog.get_logger()

OUTAGE_SECONDS = 2.0


async def settled(
    work: Awaitable[Outcome], documents: Documents, key: DocumentKey, claim: str, attempt: int
) -> Outcome:
    """Return how the work ended; what is wrong with the document is written down beside it."""
    try:
        return await _ended(work, documents, key, claim, attempt)
    except LostClaim:
        log.info("document_superseded", documentId=key.document_id)
        return Done({"documentId": key.document_id, "superseded": True})
    except RecordsUnavailable as error:
        return Defer("STATE_UNAVAILABLE", str(error), OUTAGE_SECONDS)


async def _ended(work: Awaitable[Outcome], documents: Documents, key: DocumentKey, claim: str, attempt: int) -> Outcome:
    try:
        return await work
    except ScannerUnavailable as error:
        return Defer("SCANNER_UNAVAILABLE", str(error), OUTAGE_SECONDS)
    except DocumentError as error:
        outcome = error.outcome(attempt)
    except FetchFailed as error:
        outcome = error.outcome
    if isinstance(outcome, DeadLetter | Retry):
        final = isinstance(outcome, DeadLetter)
        await documents.note_problem(key, claim, outcome.code, outcome.reason, final=final)
    return outcome


@dataclass(slots=True)
class Stopwatch:
    """How long each stage of one attempt took."""

    milliseconds: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what runs within to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = round((time.perf_counter() - started) * 1000)
            self.milliseconds[stage] = self.milliseconds.get(stage, 0) + spent
