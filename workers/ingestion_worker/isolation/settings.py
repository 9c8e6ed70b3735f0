"""How the processes that read documents are kept in bounds."""

from __future__ import annotations

from pydantic import Field

from worker_runtime.settings import WorkerSettings
from worker_runtime.settings.kinds import Milliseconds  # noqa: TC001  pydantic reads annotations

__all__ = ["IsolationSettings"]


class IsolationSettings(WorkerSettings):
    """Limits of one document."""

    document_timeout_ms: Milliseconds = Field(60_000, description="time limit of reading one document, or one page by OCR")
