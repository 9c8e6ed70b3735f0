"""Who reads scans."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from worker_runtime.settings import WorkerSettings

__all__ = ["OcrSettings"]


class OcrSettings(WorkerSettings):
    """OCR."""

    enable_ocr: bool = Field(default=False, description="read scanned documents")
    ocr_engine: Literal["tesseract", "google-vision", "aws-textract"] = Field(
        "tesseract", description="who reads scans"
    )
