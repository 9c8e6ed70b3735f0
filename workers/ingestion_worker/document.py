"""A document as it goes through the pipeline: pages, chunks, and what is known about all of it.

These travel between processes as lines of JSON in files (`PAGES`, `CHUNKS`) of the folder in which a document is worked
on, so that nobody needs to hold a whole document in memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["CHUNKS", "PAGES", "SOURCE", "Chunk", "Page", "read_lines", "write_lines"]

# Files of a working folder.
SOURCE, PAGES, CHUNKS = "source", "pages.ndjson", "chunks.ndjson"
# Bytes of one line of such a file: a page of text, at most. A task may be under somebody else's control.
LONGEST_LINE = 8_388_608

PageOrigin = Literal["text", "ocr", "none"]


@dataclass(frozen=True, slots=True)
class Page:
    """One page (sheet, slide, message, chapter), counted from 1.

    `text` is Markdown: headings with `#`, tables with `|`. `origin` tells where it comes from; `none`: it has no text.
    `ocr_reason` is why the page needs a look at its picture (`NO_TEXT`, `UNMAPPED_CHARACTERS`, `ASKED_FOR`...), or
    `None`. `confidence` is OCR's, from 0 to 1.
    """

    number: int
    text: str
    origin: PageOrigin = "text"
    ocr_reason: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of text for search, counted from 1: at most so many `tokens` of the model it was cut for.

    It stands on pages `first_page` to `last_page`, below the headings of `headings`, the outermost first.
    """

    number: int
    text: str
    tokens: int
    first_page: int
    last_page: int
    headings: tuple[str, ...] = ()


L = TypeVar("L", Page, Chunk)


def write_lines(path: Path, things: Iterable[Page] | Iterable[Chunk], *, append: bool = False) -> int:
    """Write pages or chunks as lines of JSON; return how many."""
    written = 0
    with path.open("a" if append else "w", encoding="utf-8") as file:
        for thing in things:
            fields = {name: getattr(thing, name) for name in type(thing).__slots__}
            file.write(json.dumps(fields, ensure_ascii=True, separators=(",", ":")) + "\n")
            written += 1
    return written


def read_lines(path: Path, kind: type[L]) -> Iterator[L]:
    """Yield what a task wrote, one at a time. Raises `DocumentError` (CRASH) for lines that are none of ours."""
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE):
            yield _read(line, kind)


def _read(line: bytes, kind: type[L]) -> L:
    try:
        fields: dict[str, Any] = json.loads(line)
        if "headings" in fields:
            fields["headings"] = tuple(fields["headings"])
        return kind(**fields)
    except (ValueError, TypeError, RecursionError):
        raise DocumentError(Problem.CRASH, "the process that read the document left something unreadable") from None
