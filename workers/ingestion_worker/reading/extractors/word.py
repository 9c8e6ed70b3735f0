"""DOCX: the body with headings, lists and tables, between the headers and footers, notes after it."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.extractors.body_text import BodyText
from ingestion_worker.reading.flow import NEW_PAGE, numbered, paged
from ingestion_worker.reading.identify import identify
from ingestion_worker.reading.normalise import normalise
from ingestion_worker.reading.opening import opened
from ingestion_worker.reading.package import Package
from ingestion_worker.reading.source import Extracted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ingestion_worker.reading.source import Source
    from ingestion_worker.reading.xml_events import XmlEvent

__all__ = ["extract"]

HEADING_NAME = re.compile(r"heading ?([1-9])$", re.IGNORECASE)
DEEPEST_HEADING = 6
# Fallbacks repeat in old words what was said in new ones; the others are no text of the document's any more.
LEFT_OUT = frozenset({"Fallback", "del", "moveFrom", "instrText", "delText", "delInstrText", "rt"})
CHARACTERS = {"tab": "\t", "cr": "\n", "noBreakHyphen": "-", "ptab": "\t"}
# What stands beside the text: parts whose paragraphs are written down after it.
BESIDE = ("diagramData", "footnotes", "endnotes", "comments")
# A document of another kind that Word takes for a part of this one when it opens it.
PASTED = "aFChunk"
DEEPEST_PASTED = 5


def extract(source: Source) -> Extracted:
    """Read a Word document part by part."""
    package = Package(source.path)
    main = package.first_related("", "officeDocument")
    if main is None:
        raise DocumentError(Problem.CORRUPT, "the main part of the document is missing: export or upload it again")
    metadata = package.properties(package.first_related("", "core-properties"))
    return Extracted(numbered(paged(_document(package, main, source))), metadata)


def _document(package: Package, main: str, source: Source) -> Iterator[str]:
    parts = list(dict.fromkeys(package.related(main).values()))
    headings = _headings(package, main)
    yield from _once(package, [r.part for r in parts if r.kind == "header"])
    yield from _body(package.events(main), headings)
    for related in parts:
        if related.kind == PASTED and package.has(related.part):
            yield from _pasted(package, related.part, source)
    for kind in BESIDE:
        for part in (r.part for r in parts if r.kind == kind and package.has(r.part)):
            yield from _body(package.events(part), headings)
    yield from _once(package, [r.part for r in parts if r.kind == "footer"])


def _pasted(package: Package, part: str, source: Source) -> Iterator[str]:
    """Yield what a document within this one says."""
    if source.depth >= DEEPEST_PASTED:
        raise DocumentError(Problem.BOMB, f"it holds documents within documents, more than {DEEPEST_PASTED} deep")
    path = source.folder / f"pasted-{source.depth}"
    with package.opened(part) as file, path.open("wb") as copy:
        shutil.copyfileobj(file, copy)
    found = identify(path, (part.rpartition(".")[2],), None)
    _, extracted = opened(replace(source, path=path, media_type=found.media_type, depth=source.depth + 1))
    for page in extracted.pages:
        yield from normalise(page.text, wrapped=extracted.wrapped, preserve=source.preserve).split("\n\n")


def _once(package: Package, parts: Iterable[str]) -> Iterator[str]:
    """Yield what headers or footers say, once: first pages and left pages mostly repeat it."""
    said: set[str] = set()
    for part in parts:
        if package.has(part):
            for block in _body(package.events(part), {}):
                if block not in said and block != NEW_PAGE:
                    said.add(block)
                    yield block


def _headings(package: Package, main: str) -> dict[str, int]:
    """Return the level of each style that is a heading's: by its outline level, or by its name."""
    styles = package.first_related(main, "styles")
    levels: dict[str, int] = {}
    style = ""
    for event in package.events(styles) if styles else ():
        if event.kind != "start":
            continue
        value = event.attributes.get("val", "")
        if event.name == "style":
            style = event.attributes.get("styleId", "")
        elif event.name == "name" and (found := HEADING_NAME.match(value)):
            levels[style] = int(found[1])
        elif event.name == "name" and value.lower() == "title":
            levels[style] = 1
        elif event.name == "outlineLvl" and value.isdigit() and int(value) < DEEPEST_HEADING:
            levels.setdefault(style, int(value) + 1)
    return levels


def _body(events: Iterable[XmlEvent], headings: dict[str, int]) -> Iterator[str]:
    reader = _BodyReader(headings)
    for event in events:
        reader.take(event)
        if reader.out.blocks:
            yield from reader.out.taken()
    yield from reader.out.taken()


class _BodyReader:
    """Follows the elements of WordprocessingML."""

    def __init__(self, headings: dict[str, int]) -> None:
        self.out = BodyText()
        self._headings = headings
        self._skipped = 0  # How deep we are in what is left out.
        self._in_text = False
        self._before: list[str] = []  # What goes in front of each open paragraph.
        self._seen_since_break = True

    def take(self, event: XmlEvent) -> None:
        if event.kind == "text":
            if self._in_text and not self._skipped:
                self.out.add(event.text)
                self._seen_since_break = True
        elif event.kind == "start":
            self._start(event)
        else:
            self._end(event.name)

    def _start(self, event: XmlEvent) -> None:
        name = event.name
        if self._skipped or name in LEFT_OUT:
            self._skipped += 1
        elif name == "t":
            self._in_text = True
        elif name == "p":
            self.out.begin_paragraph()
            self._before.append("")
        elif name == "tbl":
            self.out.begin_table()
        elif name == "tr":
            self.out.begin_row()
        elif name == "tc":
            self.out.begin_cell()
        else:
            self._start_detail(event)

    def _start_detail(self, event: XmlEvent) -> None:
        name, value = event.name, event.attributes.get("val", "")
        if name in CHARACTERS:
            self.out.add("" if self._in_tab_stops(event) else CHARACTERS[name])
        elif name == "br":
            self._break(event.attributes.get("type"))
        elif name == "lastRenderedPageBreak" and self._seen_since_break:
            self._new_page()
        elif not self._before:
            return
        elif name == "pStyle" and value in self._headings:
            self._before[-1] = "#" * min(self._headings[value], DEEPEST_HEADING) + " "
        elif name == "outlineLvl" and value.isdigit() and int(value) < DEEPEST_HEADING:
            self._before[-1] = "#" * (int(value) + 1) + " "
        elif name == "numPr" and not self._before[-1]:
            self._before[-1] = "- "

    @staticmethod
    def _in_tab_stops(event: XmlEvent) -> bool:
        """Tell a tab stop's definition from a tab: it has a position."""
        return event.name == "tab" and bool(event.attributes)

    def _break(self, kind: str | None) -> None:
        if kind == "page":
            self._new_page()
        else:
            self.out.add("\n")

    def _new_page(self) -> None:
        """Begin a page, unless we are in a table, which is kept whole, or at the break that Word drew for this one."""
        if self._seen_since_break and len(self._before) == 1 and not self.out.in_table:
            before = self._before[-1]
            self.out.end_paragraph(before)
            self.out.blocks.append(NEW_PAGE)
            self.out.begin_paragraph()
            self._seen_since_break = False

    def _end(self, name: str) -> None:
        if self._skipped:
            self._skipped -= 1
        elif name == "t":
            self._in_text = False
        elif name == "p":
            self.out.end_paragraph(self._before.pop() if self._before else "")
        elif name == "tc":
            self.out.end_cell()
        elif name == "tr":
            self.out.end_row()
        elif name == "tbl":
            self.out.end_table()
