"""What runs in a process of its own: tasks, by name, and the desk at which one of them works.

This module is all that a parent and its child share; it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TASKS", "Desk", "Limits", "Task"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a task may use: wall-clock seconds, bytes of memory, and bytes of any file that it writes."""

    seconds: float
    memory_bytes: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Desk:
    """What a task is given. `folder` is where it may write, and what names of files in `order` are relative to."""

    folder: Path
    order: dict[str, Any]
    report: Callable[[int, int], None]  # Tells how much is done, and of how much.


# Runs in the child. Returns a small JSON object; larger results are files in the folder. Raises `DocumentError`.
Task = Callable[[Desk], dict[str, Any]]

# A new kind of work is one function and one line here.
TASKS = {
    "read": "ingestion_worker.reading.read:read",
    "chunk": "ingestion_worker.chunking:chunk",
    "render": "ingestion_worker.ocr.render:render",
    "recognise": "ingestion_worker.ocr.tesseract:recognise",
    "assemble": "ingestion_worker.ocr.searchable_pdf:assemble",
}
