"""How the processes that read documents are kept in bounds."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  pydantic reads annotations
from typing import Annotated, Literal

from pydantic import Field

from ingestion_worker.isolation import container
from ingestion_worker.isolation.memory import LEAST_CHILD_BYTES, MEBIBYTE, RESERVED_BYTES, Portions, share_out
from worker_runtime.settings import Allowed, WorkerSettings
from worker_runtime.settings.kinds import Milliseconds  # noqa: TC001  pydantic reads annotations

__all__ = ["IsolationSettings"]

LEAST_MEMORY_BYTES = 64 * MEBIBYTE


class IsolationSettings(WorkerSettings):
    """Limits of one document."""

    document_timeout_ms: Milliseconds = Field(
        60_000, description="time limit of reading one document, or one page by OCR"
    )
    document_memory_bytes: Annotated[int, Field(ge=LEAST_MEMORY_BYTES)] | None = Field(
        None, description="most memory that reading one document takes; by default what the container's memory allows"
    )
    document_output_bytes: int = Field(
        512 * MEBIBYTE, ge=MEBIBYTE, description="most bytes of each file made while reading a document"
    )
    document_slots: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None,
        description="documents, or pages by OCR, read at once; by default QUEUE_CONCURRENCY, or what memory allows",
    )
    document_sandbox: Literal["none", "bubblewrap"] = Field(
        "none", description="what else keeps the reading of documents apart from the system"
    )
    document_work_dir: Annotated[Path, Allowed("a folder")] | None = Field(
        None, description="folder in which documents are worked on; by default the system's for temporary files"
    )

    def portions(self) -> Portions:
        """Return how many documents are read at once, and how much memory each may take."""
        return share_out(
            container.memory_bytes(),
            at_most=min(self.queue_concurrency, 256),
            slots=self.document_slots,
            child_bytes=self.document_memory_bytes,
        )

    def warnings(self) -> list[str]:
        """See `WorkerSettings`."""
        found, portions, limit = super().warnings(), self.portions(), container.memory_bytes()
        if portions.slots * portions.child_bytes + RESERVED_BYTES > limit:
            found.append(
                f"DOCUMENT_SLOTS x DOCUMENT_MEMORY_BYTES ({portions.slots} x {portions.child_bytes}) do not fit into "
                f"{limit} bytes of memory beside the worker's {RESERVED_BYTES}: documents will be killed for want of it"
            )
        if portions.child_bytes < LEAST_CHILD_BYTES:
            found.append(f"DOCUMENT_MEMORY_BYTES under {LEAST_CHILD_BYTES}: too little for many documents, and for OCR")
        return found
