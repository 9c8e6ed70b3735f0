"""The task `read`: from a file to pages of clean text, and what else is known about it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from ingestion_worker.document import PAGES, SOURCE, Page, write_lines
from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.broken import typed_errors
from ingestion_worker.reading.identify import identify
from ingestion_worker.reading.language import Sample, language_of
from ingestion_worker.reading.normalise import normalise
from ingestion_worker.reading.opening import opened
from ingestion_worker.reading.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ingestion_worker.isolation.task import Desk
    from ingestion_worker.reading.identify import Identified
    from ingestion_worker.reading.source import Extracted

__all__ = ["read"]

# Characters of a page: written as JSON, twelve bytes each at worst, it must fit a line of `document.LONGEST_LINE`.
LONGEST_PAGE = 600_000
# Bytes that metadata may have in all, and characters that one value may: the job's result has 4 KB for everything.
MOST_METADATA = 3_000
LONGEST_VALUE = 300
MOST_WARNINGS = 10
# Pages between two reports of progress.
PROGRESS_STEP = 10


@dataclass(slots=True)
class _Tally:
    """What was counted while pages went by."""

    pages: int = 0
    characters: int = 0
    for_ocr: int = 0
    sample: Sample = field(default_factory=Sample)


def read(desk: Desk) -> dict[str, Any]:
    """Identify the file, guard against what it may do, and write its pages."""
    with typed_errors():
        source, identified = _source(desk)
        source, extracted = opened(source)
        tally = _Tally()
        write_lines(desk.folder / PAGES, _clean_pages(desk, source, extracted, tally))
        _refuse_empty(tally, desk.order)
        return _result(desk, source, identified, extracted, tally)


def _source(desk: Desk) -> tuple[Source, Identified]:
    order, path = desk.order, desk.folder / SOURCE
    ending = str(order.get("name") or "").rpartition(".")[2]
    identified = identify(path, (order.get("format"), ending), order.get("mediaType"))
    source = Source(
        path=path,
        media_type=identified.media_type,
        folder=desk.folder,
        password=order.get("password") or None,
        charset=order.get("charset"),
        language=order.get("language"),
        ocr=order.get("ocr", "auto"),
        preserve=bool(order.get("preserveFormatting")),
        max_pages=order["maxPages"],
    )
    return source, identified


def _clean_pages(desk: Desk, source: Source, extracted: Extracted, tally: _Tally) -> Iterator[Page]:
    for page in extracted.pages:
        text = normalise(page.text, wrapped=extracted.wrapped, preserve=source.preserve)
        tally.pages += 1
        tally.characters += len(text)
        tally.for_ocr += page.ocr_reason is not None
        tally.sample.add(text)
        _refuse_too_large(tally, len(text), desk.order)
        if tally.pages % PROGRESS_STEP == 0:
            desk.report(tally.pages, max(extracted.total, tally.pages))
        yield Page(page.number, text, page.origin if text else "none", page.ocr_reason)


def _refuse_too_large(tally: _Tally, length: int, order: Mapping[str, Any]) -> None:
    pages, characters = order["maxPages"], order["maxCharacters"]
    if tally.pages > pages:
        raise DocumentError(Problem.TOO_LARGE, f"it has more than {pages} pages, which DOCUMENT_MAX_PAGES allows")
    if tally.characters > characters:
        sentence = f"it has more than {characters} characters, which DOCUMENT_MAX_CHARACTERS allows"
        raise DocumentError(Problem.TOO_LARGE, sentence)
    if length > LONGEST_PAGE:
        raise DocumentError(Problem.TOO_LARGE, f"page {tally.pages} has more than {LONGEST_PAGE} characters")


def _refuse_empty(tally: _Tally, order: Mapping[str, Any]) -> None:
    if tally.characters or tally.for_ocr:
        return
    off = " and OCR was not asked for" if order.get("ocr") == "never" else ""
    raise DocumentError(Problem.EMPTY, f"nothing is written in it{off}: is it the right file?")


def _result(desk: Desk, source: Source, identified: Identified, extracted: Extracted, tally: _Tally) -> dict[str, Any]:
    desk.report(tally.pages, tally.pages)
    warnings = list(chain(_corrected(identified.declared, source.media_type), extracted.warnings))
    return {
        "mediaType": source.media_type,
        "pages": tally.pages,
        "characters": tally.characters,
        "language": language_of(tally.sample),
        "metadata": _short(extracted.metadata) if desk.order.get("extractMetadata", True) else {},
        "ocrPages": tally.for_ocr,
        "warnings": warnings[:MOST_WARNINGS],
    }


def _corrected(declared: str | None, found: str) -> Iterator[str]:
    if declared not in (None, found):
        yield f"declared as {declared}, found to be {found}"


def _short(metadata: Mapping[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
    """Cut long values, and leave out those that do not fit any more."""
    kept: dict[str, str | int | float | bool] = {}
    room = MOST_METADATA
    for name, value in metadata.items():
        short = normalise(value, wrapped=False)[:LONGEST_VALUE].strip() if isinstance(value, str) else value
        room -= len(json.dumps({name: short}))
        if short != "" and room >= 0:
            kept[name] = short
    return kept
