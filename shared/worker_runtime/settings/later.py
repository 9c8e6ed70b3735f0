"""Variables of features that later versions bring.

They are part of the operator's contract already: a value that would be wrong then is refused now, and switching a
feature on stops the start with a line that says so, rather than being ignored.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  pydantic reads annotations
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from worker_runtime.settings.groups import DatabaseUrl  # noqa: TC001  pydantic reads annotations
from worker_runtime.settings.kinds import (
    Allowed,
    Milliseconds,
    NoEffectYet,
    NotInThisVersion,
    WebAddress,
)


class LaterVariables(BaseSettings):
    """Features of later versions."""

    enable_text_extraction: Annotated[bool, NoEffectYet("the ingestion-worker")] = Field(
        default=True,
        description="extract text from documents",
    )
    enable_ocr: Annotated[bool, NotInThisVersion("OCR"), Allowed("false")] = Field(
        default=False,
        description="read scanned documents",
    )
    enable_embeddings: Annotated[bool, NotInThisVersion("embedding generation"), Allowed("false")] = Field(
        default=False,
        description="make documents searchable",
    )
    ocr_engine: Annotated[Literal["tesseract", "google-vision", "aws-textract"], NoEffectYet("OCR")] = Field(
        "tesseract", description="who reads scans"
    )
    storage_url: Annotated[str | None, NoEffectYet("the ingestion-worker")] = Field(
        None, description="object store of documents"
    )
    documents_root: Annotated[Path | None, NoEffectYet("the ingestion-worker")] = Field(
        None, description="folder `file:` URLs may point into"
    )
    document_timeout_ms: Annotated[Milliseconds, NoEffectYet("the ingestion-worker")] = Field(
        60_000, description="time limit of one document"
    )
    embedding_provider: Annotated[Literal["local", "openai"], NoEffectYet("embedding generation")] = Field(
        "local", description="who computes embeddings"
    )
    embedding_base_url: Annotated[WebAddress | None, NoEffectYet("embedding generation")] = Field(
        None, description="address of an OpenAI-compatible service"
    )
    embedding_model: Annotated[str | None, NoEffectYet("embedding generation")] = Field(
        None, description="model of the embedding service"
    )
    embedding_api_key: Annotated[SecretStr | None, NoEffectYet("embedding generation")] = Field(
        None, description="key of the embedding service"
    )
    job_queue_database_url: Annotated[DatabaseUrl | None, NoEffectYet("the jobs-worker")] = Field(
        None, description="PostgreSQL database of the jobs-worker"
    )
    job_queue_enabled: Annotated[bool, NoEffectYet("the jobs-worker")] = Field(
        default=True,
        description="run the jobs-worker's tasks",
    )
