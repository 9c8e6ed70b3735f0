"""Where documents may come from, and how large they may be."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  pydantic reads annotations
from typing import Annotated

from pydantic import AfterValidator, Field

from worker_runtime.settings import WorkerSettings
from worker_runtime.settings.kinds import Allowed
from worker_runtime.storage import storage_location

__all__ = ["FetchingSettings"]

MEBIBYTE = 1_048_576


class FetchingSettings(WorkerSettings):
    """Documents' sources."""

    storage_url: Annotated[
        str,
        AfterValidator(storage_location),
        Allowed("a folder, or a URL like s3://bucket/prefix, gs://... or az://..."),
    ] = Field(
        ".data/objects", description="object store that documents come from, and results go to without a database"
    )
    documents_root: Annotated[Path, Allowed("a folder")] | None = Field(
        None, description="folder that `file:` URLs may point into; without it they are refused"
    )
    document_max_bytes: int = Field(100 * MEBIBYTE, ge=1, description="most bytes of a document")
