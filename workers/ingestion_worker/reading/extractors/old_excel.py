"""XLS, of every Excel since 1990: a page for each sheet, as of XLSX."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.compound_file import COMPOUND_FILE, properties_of_compound_file
from ingestion_worker.reading.extractors import old_office
from ingestion_worker.reading.extractors.excel import DAY_ZERO, DAY_ZERO_OF_1904, date_text, number_text
from ingestion_worker.reading.flow import numbered
from ingestion_worker.reading.source import Extracted
from ingestion_worker.reading.tables import sheet_pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from ingestion_worker.reading.source import Source
    from ingestion_worker.reading.tables import Row

__all__ = ["extract"]

# Kinds of cells, as xlrd numbers them.
TEXT, NUMBER, DATE, BOOLEAN = 1, 2, 3, 4
# What xlrd raises for a broken file depends on where that is broken.
BROKEN = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
)


def extract(source: Source) -> Extracted:
    """Read a workbook; one that xlrd takes for broken may be whole to kreuzberg, which has other blind spots."""
    import xlrd  # noqa: PLC0415  most documents are none of these

    try:
        book = xlrd.open_workbook(
            str(source.path),
            logfile=io.StringIO(),
            use_mmap=False,  # Where memory is short, that is an error like those of broken files.
            ragged_rows=True,
            ignore_workbook_corruption=True,
        )
    except (xlrd.XLRDError, xlrd.compdoc.CompDocError, xlrd.formula.FormulaError, *BROKEN) as error:
        if "encrypted" in str(error):
            sentence = "the document is locked with a password: send it as options.password"
            raise DocumentError(Problem.ENCRYPTED, sentence) from error
        return old_office.extract(source)
    metadata = _properties(source) | {"sheets": book.nsheets}
    return Extracted(numbered(_pages(book)), metadata)


def _properties(source: Source) -> dict[str, str | int | float | bool]:
    with source.path.open("rb") as file:
        is_compound = file.read(len(COMPOUND_FILE)) == COMPOUND_FILE
    return properties_of_compound_file(source.path) if is_compound else {}


def _pages(book: Any) -> Iterator[str]:
    day_zero = DAY_ZERO_OF_1904 if book.datemode else DAY_ZERO
    for sheet in book.sheets():
        yield from sheet_pages(sheet.name, _rows(sheet, day_zero))


def _rows(sheet: Any, day_zero: datetime) -> Iterator[Row]:
    for number in range(sheet.nrows):
        cells = zip(sheet.row_types(number), sheet.row_values(number), strict=True)
        texts = (_text(kind, value, day_zero) for kind, value in cells)
        if row := {column: text for column, text in enumerate(texts) if text}:
            yield row


def _text(kind: int, value: Any, day_zero: datetime) -> str:
    """Return a cell as it is read; errors and blank ones are nothing."""
    if kind == TEXT:
        return str(value)
    if kind == NUMBER:
        return number_text(value)
    if kind == DATE:
        return date_text(value, day_zero)
    return ("TRUE" if value else "FALSE") if kind == BOOLEAN else ""
