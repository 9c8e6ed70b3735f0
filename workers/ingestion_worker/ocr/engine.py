"""Who reads pictures of pages: the promise, what comes of it, and the table of those who keep it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from ingestion_worker.settings import IngestionSettings
    from worker_runtime.breaker import Breaker
    from worker_runtime.outcome import DeadLetter, Defer, Hold, Retry

__all__ = ["EngineFailed", "OcrEngine", "PictureLimits", "PictureTooLarge", "Recognised", "Tasks", "opened_engine"]

# A new engine is one file, with a context manager that takes settings, tasks and a source of breakers, and a line here.
ENGINES = {
    "tesseract": "ingestion_worker.ocr.tesseract_engine:opened_tesseract",
    "google-vision": "ingestion_worker.ocr.google_vision:opened_google_vision",
    "aws-textract": "ingestion_worker.ocr.aws_textract:opened_aws_textract",
}


class Tasks(Protocol):
    """The part of the isolation that reading pictures needs."""

    @property
    def slots(self) -> int:
        """How many tasks run at once."""
        ...

    async def run(
        self,
        task: str,
        order: Mapping[str, Any],
        folder: Path,
        *,
        seconds: float | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Run a task in a child. Raises `DocumentError`; cancelling it kills the child first."""
        ...


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """What an engine can be shown: pixels in all and along a side, and the bytes of a file, if those are limited.

    With `bytes` pictures are JPEG, else PNG.
    """

    pixels: int
    side: int = 32_767
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Recognised:
    """What was read on a page. Without words there is no `confidence` (0 to 1, the mean over the words).

    `rotated`: degrees clockwise by which it had to be turned. `attempts`: how it was read, the last ways too.
    `warnings` are about the whole job, and the same on every page.
    """

    text: str
    confidence: float | None
    rotated: int = 0
    attempts: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = field(default=())


class EngineFailed(Exception):
    """The engine could not read any page now: `outcome` is what becomes of the job. It says nothing of the document."""

    def __init__(self, outcome: Retry | Defer | Hold | DeadLetter) -> None:
        super().__init__(f"{outcome.code}: {outcome.reason}")
        self.outcome = outcome


class PictureTooLarge(Exception):
    """The engine wants a smaller picture of this page."""


class OcrEngine(Protocol):
    """Reads a picture."""

    @property
    def name(self) -> str:
        """The value of OCR_ENGINE."""
        ...

    @property
    def at_once(self) -> int:
        """How many calls make sense at once."""
        ...

    @property
    def limits(self) -> PictureLimits:
        """What pictures must be like."""
        ...

    async def recognise(self, folder: Path, image: str, page: int, language: str | None) -> Recognised:
        """Read the file `image` of `folder`. Takes seconds; may be called at once by many, and cancelled.

        Raises `DocumentError` about this page, `PictureTooLarge`, and `EngineFailed` when it is the engine's trouble.
        """
        ...


@asynccontextmanager
async def opened_engine(
    settings: IngestionSettings, tasks: Tasks, breaker: Callable[[str, float], Breaker]
) -> AsyncIterator[OcrEngine]:
    """Open the configured engine. `breaker` returns that of a dependency, given a call's longest time in seconds.

    Raises `SettingsError` when it cannot work as configured.
    """
    module, _, name = ENGINES[settings.ocr_engine].partition(":")
    async with getattr(import_module(module), name)(settings, tasks, breaker) as engine:
        yield engine
