"""Tables in text: cells separated by commas, semicolons, tabs or bars."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.charset import charset_of, pieces_of
from ingestion_worker.reading.flow import numbered
from ingestion_worker.reading.source import Extracted
from ingestion_worker.reading.tables import sheet_pages
from ingestion_worker.reading.text_kinds import DELIMITERS, likely_delimiter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ingestion_worker.reading.charset import Charset
    from ingestion_worker.reading.source import Source
    from ingestion_worker.reading.tables import Row

__all__ = ["extract"]

# Characters of a cell, and of a line: one that never ends is no table.
LONGEST_CELL = 1_000_000
LONGEST_LINE = 4_000_000
# Characters looked at for the delimiter.
BEGINNING = 16_384


def extract(source: Source) -> Extracted:
    """Read a table row by row, however long it is."""
    charset = charset_of(source.path, [("sender", source.charset)])
    delimiter = _delimiter(source.path, charset)
    pages = numbered(sheet_pages("", _rows(source.path, charset, delimiter)))
    return Extracted(pages, {"charset": charset.name, "charsetFrom": charset.known_from, "delimiter": delimiter})


def _delimiter(path: Path, charset: Charset) -> str:
    beginning = next(pieces_of(path, charset), "")[:BEGINNING]
    first = beginning.partition("\n")[0]
    if first.lower().startswith("sep=") and len(first.strip()) > len("sep="):
        return first[len("sep=")]
    delimiter, share = likely_delimiter(beginning)
    return delimiter if share else max(DELIMITERS, key=first.count)


def _rows(path: Path, charset: Charset, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_CELL)
    try:
        for cells in csv.reader(_lines(pieces_of(path, charset)), delimiter=delimiter):
            if any(cells) and not cells[0].lower().startswith("sep="):
                yield dict(enumerate(cells))
    except csv.Error as error:
        sentence = f"a cell has more than {LONGEST_CELL} characters: is it a table at all?"
        raise DocumentError(Problem.TOO_LARGE, sentence) from error


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    """Yield lines with their ends. NULs are left out, which some exports fill cells with."""
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece.replace("\0", "")).splitlines(keepends=True) or [""]
        yield from lines
        if len(rest) > LONGEST_LINE:
            raise DocumentError(
                Problem.TOO_LARGE, f"a line has more than {LONGEST_LINE} characters: is it a table at all?"
            )
    if rest:
        yield rest
