"""Tesseract, as the worker sees it: each picture of a page is read by a child."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

from ingestion_worker.ocr.engine import PictureLimits, Recognised
from ingestion_worker.ocr.installed import installed_tesseract
from ingestion_worker.ocr.languages import understood
from ingestion_worker.ocr.left_files import read_left
from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from ingestion_worker.ocr.engine import Tasks
    from ingestion_worker.ocr.installed import InstalledTesseract
    from ingestion_worker.settings import IngestionSettings
    from worker_runtime.breaker import Breaker

__all__ = ["TesseractEngine", "opened_tesseract"]

# Of the time that the child has: the rest is for starting it, and for writing down what was read.
SHARE_OF_TIME = 0.85
MOST_BYTES_READ = 8_388_608


class TesseractEngine:
    """See `OcrEngine`."""

    name: ClassVar[str] = "tesseract"

    def __init__(self, found: InstalledTesseract, tasks: Tasks, settings: IngestionSettings) -> None:
        self.limits = PictureLimits(settings.ocr_max_pixels)
        self._found = found
        self._tasks = tasks
        self._orders = {
            "program": str(found.program),
            "data": str(found.data),
            "orientation": str(found.orientation) if found.orientation else None,
            "least_confidence": settings.ocr_min_confidence,
            "most_pixels": settings.ocr_max_pixels,
            "seconds": settings.document_timeout_ms / 1000 * SHARE_OF_TIME,
            "pdf": settings.ocr_searchable_pdf,
        }

    @property
    def at_once(self) -> int:
        """See `OcrEngine`."""
        return self._tasks.slots

    async def recognise(self, folder: Path, image: str, page: int, language: str | None) -> Recognised:
        """See `OcrEngine`."""
        languages = understood(language, self._found.languages)
        orders = self._orders | {"language": languages.codes or self._found.fallback}
        await self._tasks.run("recognise", {"image": image, "page": page, "tesseract": orders}, folder)
        return _understood(folder / f"page-{page}.json", self._warnings(languages.unknown))

    def _warnings(self, unknown: tuple[str, ...]) -> tuple[str, ...]:
        has = ", ".join(sorted(self._found.languages))
        return tuple(f"Tesseract has no data for the language {name}; installed: {has}" for name in unknown)


def _understood(path: Path, warnings: tuple[str, ...]) -> Recognised:
    """Read what the child left. It had a stranger's picture in its hands: nothing of that is taken on trust."""
    try:
        told = json.loads(read_left(path, MOST_BYTES_READ))
        text, confidence, rotated, attempts = (told[key] for key in ("text", "confidence", "rotated", "attempts"))
        right = isinstance(text, str) and isinstance(rotated, int) and isinstance(attempts, list)
        confidence = None if confidence is None else min(max(float(confidence), 0.0), 1.0)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        right = False
    if not right:
        raise DocumentError(Problem.CRASH, "the process that read the page left something unreadable")
    return Recognised(text, confidence, rotated, tuple(attempts), warnings)


@asynccontextmanager
async def opened_tesseract(
    settings: IngestionSettings, tasks: Tasks, breaker: Callable[[str, float], Breaker]
) -> AsyncIterator[TesseractEngine]:
    """Open it: there is nothing to close, and no dependency that could be out."""
    del breaker
    yield TesseractEngine(installed_tesseract(settings), tasks, settings)
