"""XLSX: a page for each sheet, or more where it is long; cells as they are stored, dates as dates."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.flow import numbered
from ingestion_worker.reading.package import Package
from ingestion_worker.reading.source import Extracted
from ingestion_worker.reading.tables import sheet_pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ingestion_worker.reading.source import Source
    from ingestion_worker.reading.tables import Row
    from ingestion_worker.reading.xml_events import XmlEvent

__all__ = ["DAY_ZERO", "DAY_ZERO_OF_1904", "date_text", "extract", "number_text"]

# Number formats that Excel has built in for dates and times; others are told by their letters.
DATE_FORMATS = frozenset({*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)})
NOT_FORMAT_LETTERS = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]|_.|\*.')
DATE_LETTERS = re.compile(r"[dmyhs]", re.IGNORECASE)
# Excel believes that 1900 was a leap year, as Lotus did: days count from here since March of it.
DAY_ZERO, DAY_ZERO_OF_1904 = datetime(1899, 12, 30), datetime(1904, 1, 1)  # noqa: DTZ001  sheets know no zones
LAST_DAY = 2_958_465
SIGNIFICANT_DIGITS = 15
LONGEST_COLUMN = 3  # Letters: the last one is XFD.


class _Book(NamedTuple):
    strings: Sequence[str]
    dates: frozenset[int]  # Indices of cell formats that are dates'.
    day_zero: datetime


def extract(source: Source) -> Extracted:
    """Read a workbook, sheet by sheet in its order."""
    package = Package(source.path)
    main = package.first_related("", "officeDocument")
    if main is None:
        raise DocumentError(Problem.CORRUPT, "the workbook itself is missing: export or upload it again")
    sheets, day_zero = _sheets(package, main)
    metadata = package.properties(package.first_related("", "core-properties"))
    metadata["sheets"] = len(sheets)
    return Extracted(numbered(_pages(package, main, sheets, day_zero)), metadata)


def _sheets(package: Package, main: str) -> tuple[list[tuple[str, str]], datetime]:
    """Return names and parts of the sheets, and the day that days count from."""
    related = package.related(main)
    sheets, day_zero = [], DAY_ZERO
    for event in package.events(main):
        if event.kind == "start" and event.name == "sheet":
            part = related.get(event.attributes.get("id", ""))
            if part and part.kind == "worksheet" and package.has(part.part):
                sheets.append((event.attributes.get("name", ""), part.part))
        elif event.kind == "start" and event.attributes.get("date1904") in ("1", "true"):
            day_zero = DAY_ZERO_OF_1904
    return sheets, day_zero


def _pages(package: Package, main: str, sheets: Sequence[tuple[str, str]], day_zero: datetime) -> Iterator[str]:
    book = _Book(_strings(package, main), _date_formats(package, main), day_zero)
    for name, part in sheets:
        yield from sheet_pages(name, _rows(package, part, book))


def _strings(package: Package, main: str) -> list[str]:
    part = package.first_related(main, "sharedStrings")
    strings: list[str] = []
    for event in _without_readings(package.events(part)) if part else ():
        if event.kind == "start" and event.name == "si":
            strings.append("")
        elif event.kind == "text" and strings and event.name == "t":
            strings[-1] += event.text
    return strings


def _without_readings(events: Iterator[XmlEvent]) -> Iterator[XmlEvent]:
    """Leave out how Japanese words are pronounced, and give texts the name of their element."""
    reading, name = False, ""
    for event in events:
        if event.name == "rPh":
            reading = event.kind == "start"
        elif event.kind == "text":
            if not reading:
                yield event._replace(name=name)
        else:
            name = event.name if event.kind == "start" else ""
            yield event


def _date_formats(package: Package, main: str) -> frozenset[int]:
    part = package.first_related(main, "styles")
    own: set[str] = set()
    dates: list[bool] = []
    in_cell_formats = False
    for event in package.events(part) if part else ():
        if event.name == "cellXfs":
            in_cell_formats = event.kind == "start"
        elif event.kind != "start":
            continue
        elif event.name == "numFmt" and _is_date_format(event.attributes.get("formatCode", "")):
            own.add(event.attributes.get("numFmtId", ""))
        elif event.name == "xf" and in_cell_formats:
            number = event.attributes.get("numFmtId", "")
            dates.append(number in own or (number.isdecimal() and int(number) in DATE_FORMATS))
    return frozenset(index for index, is_date in enumerate(dates) if is_date)


def _is_date_format(code: str) -> bool:
    return bool(DATE_LETTERS.search(NOT_FORMAT_LETTERS.sub("", code.partition(";")[0])))


def _rows(package: Package, part: str, book: _Book) -> Iterator[Row]:
    """Yield rows that have anything in them; cells that do not exist cost nothing, wherever the others are."""
    sheet = _Sheet(book)
    for _ in package.feed(part, sheet):
        yield from sheet.rows
        sheet.rows = []


class _Sheet:
    """Takes a sheet's XML as it is parsed: there may be millions of cells, and this is most of the time they cost."""

    def __init__(self, book: _Book) -> None:
        self.rows: list[Row] = []
        self._book = book
        self._row: Row = {}
        self._column = -1
        self._kind = self._style = self._text = ""
        self._in_value = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name in ("v", "t"):
            self._in_value = True
        elif name == "c":
            self._kind, self._style = attributes.get("t", "n"), attributes.get("s", "")
            self._column = _column(attributes.get("r"), self._column)
            self._text = ""
        elif name == "row":
            self._row, self._column = {}, -1

    def text(self, text: str) -> None:
        if self._in_value:
            self._text += text

    def end(self, name: str) -> None:
        if name in ("v", "t"):
            self._in_value = False
        elif name == "c":
            if self._text and (value := _value(self._text, self._kind, self._style, self._book)):
                self._row[self._column] = value
        elif name == "row" and self._row:
            self.rows.append(self._row)


def _column(reference: str | None, before: int) -> int:
    """Return the column of `AB12`, counted from 0; without a reference it is the next one."""
    letters = (reference or "").rstrip("0123456789")
    return _number_of(letters) if letters and len(letters) <= LONGEST_COLUMN else before + 1


@lru_cache(maxsize=16_384)
def _number_of(letters: str) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return max(number, 1) - 1


def _value(text: str, kind: str, style: str, book: _Book) -> str:
    if kind == "s":
        index = int(text) if text.isdecimal() and len(text) < SIGNIFICANT_DIGITS else len(book.strings)
        return book.strings[index] if index < len(book.strings) else ""
    if kind == "b":
        return "TRUE" if text == "1" else "FALSE"
    if kind != "n" or not text:
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    if style.isdecimal() and int(style) in book.dates:
        return date_text(number, book.day_zero)
    return number_text(number) if "." in text or "e" in text.lower() else text


def number_text(number: float) -> str:
    """Write a number with as many digits as Excel knows of it."""
    return f"{number:.{SIGNIFICANT_DIGITS}g}"


def date_text(days: float, day_zero: datetime) -> str:
    """Write a date or a time as ISO 8601 does; days that no calendar has are a number."""
    if not 0 <= days <= LAST_DAY:
        return number_text(days)
    moment = day_zero + timedelta(seconds=round(days * 86_400))
    if days < 1:
        return moment.strftime("%H:%M:%S")
    return moment.date().isoformat() if days == int(days) else moment.isoformat(" ")
