"""How a document's job goes on when its bytes could not be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from worker_runtime.outcome import DeadLetter, Defer, Retry

__all__ = ["FetchFailed", "too_large"]


class FetchFailed(Exception):
    """The document did not arrive; `outcome` says what becomes of its job.

    The sentence names neither path nor query of the document's URL, for those may hold a signature.
    """

    def __init__(self, outcome: Retry | Defer | DeadLetter) -> None:
        super().__init__(f"{outcome.code}: {outcome.reason}")
        self.outcome = outcome


def too_large(size: int, most: int) -> DocumentError:
    """Say that a document has, or will have, `size` bytes or more."""
    return DocumentError(Problem.TOO_LARGE, f"the document has {size} bytes or more; DOCUMENT_MAX_BYTES allows {most}")
