"""ODT, ODS and ODP: one format for all three; slides and sheets are pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading import media_types as types
from ingestion_worker.reading.extractors.body_text import BodyText
from ingestion_worker.reading.flow import NEW_PAGE, numbered, paged
from ingestion_worker.reading.package import Package
from ingestion_worker.reading.source import Extracted
from ingestion_worker.reading.tables import sheet_pages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ingestion_worker.reading.source import Source
    from ingestion_worker.reading.tables import Row
    from ingestion_worker.reading.xml_events import XmlEvent

__all__ = ["extract"]

CONTENT, STYLES, META, MANIFEST = "content.xml", "styles.xml", "meta.xml", "META-INF/manifest.xml"
# What was deleted, said about the text or drawn beside it, or is how a word is pronounced.
LEFT_OUT = frozenset(
    {"tracked-changes", "annotation", "ruby-text", "forms", "note-citation", "bibliography-mark-source"}
)
CELLS = ("table-cell", "covered-table-cell")
DEEPEST_HEADING = 6
# Spaces that one element may stand for, and cells that one may: sheets end with a row of a million empty ones.
MOST_SPACES = 100
MOST_REPEATED = 1_000


def extract(source: Source) -> Extracted:
    """Read an OpenDocument file."""
    package = Package(source.path)
    _refuse_locked(package)
    metadata = package.properties(META)
    if source.media_type == types.ODS:
        return Extracted(numbered(_sheets(package.events(CONTENT))), metadata)
    pages = paged(_document(package))
    if source.media_type == types.ODP:
        return Extracted(numbered(_after_first(pages)), metadata)
    return Extracted(numbered(pages), metadata)


def _refuse_locked(package: Package) -> None:
    if not package.has(MANIFEST):
        return
    if any(event.name == "encryption-data" for event in package.events(MANIFEST)):
        raise DocumentError(
            Problem.ENCRYPTED, "the document is locked with a password, which we cannot use for OpenDocument: unlock it"
        )


def _document(package: Package) -> Iterator[str]:
    if package.has(STYLES):
        yield from _beside(package.events(STYLES), "header")
    yield from _body(package.events(CONTENT))
    if package.has(STYLES):
        yield from _beside(package.events(STYLES), "footer")


def _after_first(pages: Iterator[str]) -> Iterator[str]:
    """Leave out the page before the first slide, on which nothing is."""
    first = next(pages, "")
    if first:
        yield first
    yield from pages


def _beside(events: Iterable[XmlEvent], kind: str) -> Iterator[str]:
    """Yield what stands in headers or footers, once: `header` also finds those of left and first pages."""
    said: set[str] = set()
    inside = False
    wanted: list[XmlEvent] = []
    for event in events:
        if event.kind != "text" and event.name in (kind, f"{kind}-left", f"{kind}-first"):
            inside = event.kind == "start"
        elif inside:
            wanted.append(event)
    for block in _body(wanted):
        if block not in said:
            said.add(block)
            yield block


def _body(events: Iterable[XmlEvent]) -> Iterator[str]:
    reader = _BodyReader()
    for event in events:
        reader.take(event)
        if reader.out.blocks:
            yield from reader.out.taken()
    yield from reader.out.taken()


class _BodyReader:
    """Follows the elements of OpenDocument."""

    def __init__(self) -> None:
        self.out = BodyText()
        self._skipped = 0
        self._before: list[str] = []
        self._lists = 0

    def take(self, event: XmlEvent) -> None:
        if event.kind == "text":
            if self._before and not self._skipped:
                self.out.add(event.text)
        elif event.kind == "start":
            self._start(event)
        else:
            self._end(event.name)

    def _start(self, event: XmlEvent) -> None:
        name, attributes = event.name, event.attributes
        if self._skipped or name in LEFT_OUT:
            self._skipped += 1
        elif name in ("p", "h"):
            self.out.begin_paragraph()
            level = min(_number(attributes.get("outline-level"), 1), DEEPEST_HEADING)
            self._before.append("#" * level + " " if name == "h" else "- " if self._lists else "")
        elif name == "s":
            self.out.add(" " * min(_number(attributes.get("c"), 1), MOST_SPACES))
        elif name in ("tab", "line-break"):
            self.out.add("\t" if name == "tab" else "\n")
        elif name in ("soft-page-break", "page"):
            self._new_page()
        elif name == "list":
            self._lists += 1
        else:
            self._start_table(name, attributes)

    def _start_table(self, name: str, attributes: dict[str, str]) -> None:
        if name == "table":
            self.out.begin_table()
        elif name == "table-row":
            self.out.begin_row()
        elif name in CELLS:
            self.out.begin_cell(min(_number(attributes.get("number-columns-repeated"), 1), MOST_REPEATED))

    def _new_page(self) -> None:
        """Begin a page; within a table, or a paragraph, none begins."""
        if not self.out.in_table and not self._before:
            self.out.blocks.append(NEW_PAGE)

    def _end(self, name: str) -> None:
        if self._skipped:
            self._skipped -= 1
        elif name in ("p", "h"):
            self.out.end_paragraph(self._before.pop() if self._before else "")
        elif name == "list":
            self._lists -= 1
        elif name in CELLS:
            self.out.end_cell()
        elif name == "table-row":
            self.out.end_row()
        elif name == "table":
            self.out.end_table()


def _sheets(events: Iterator[XmlEvent]) -> Iterator[str]:
    for event in events:
        if event.kind == "start" and event.name == "table":
            yield from sheet_pages(event.attributes.get("name", ""), _rows(events))


def _rows(events: Iterator[XmlEvent]) -> Iterator[Row]:
    """Yield the rows of the table that has begun, up to its end; a row that stands for many is said once."""
    row = _Row()
    for event in _without_what_is_left_out(events):
        if event.kind == "text":
            row.texts.append(event.text)
        elif event.kind == "start":
            row.start(event)
        elif event.name in CELLS:
            row.end_cell()
        elif event.name == "table-row" and row.cells:
            yield row.cells
        elif event.name == "table":
            return


class _Row:
    def __init__(self) -> None:
        self.cells: Row = {}
        self.texts: list[str] = []
        self._column, self._repeated = 0, 1

    def start(self, event: XmlEvent) -> None:
        if event.name == "table-row":
            self.cells, self._column = {}, 0
        elif event.name in CELLS:
            self._repeated, self.texts = _number(event.attributes.get("number-columns-repeated"), 1), []
        elif event.name in ("p", "s", "tab", "line-break"):
            self.texts.append(" ")

    def end_cell(self) -> None:
        if text := "".join(self.texts).strip():
            columns = range(self._column, self._column + min(self._repeated, MOST_REPEATED))
            self.cells.update(dict.fromkeys(columns, text))
        self._column += self._repeated


def _without_what_is_left_out(events: Iterable[XmlEvent]) -> Iterator[XmlEvent]:
    skipped = 0
    for event in events:
        if skipped or event.name in LEFT_OUT:
            skipped += (event.kind == "start") - (event.kind == "end")
        else:
            yield event


def _number(written: str | None, otherwise: int) -> int:
    return int(written) if written and written.isdecimal() and len(written) < 9 else otherwise  # noqa: PLR2004
