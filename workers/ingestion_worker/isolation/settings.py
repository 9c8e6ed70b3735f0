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
