"""PPTX: a page for each slide, in the order they are shown, with its notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.extractors.body_text import BodyText
from ingestion_worker.reading.flow import numbered
from ingestion_worker.reading.package import Package
from ingestion_worker.reading.source import Extracted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ingestion_worker.reading.source import Source
    from ingestion_worker.reading.xml_events import XmlEvent

__all__ = ["extract"]

TITLES = ("title", "ctrTitle")
# Repeated on every slide, and known from elsewhere.
LEFT_OUT_PLACES = ("sldNum", "dt", "hdr", "sldImg")


def extract(source: Source) -> Extracted:
    """Read a presentation, slide by slide."""
    package = Package(source.path)
    main = package.first_related("", "officeDocument")
    if main is None:
        raise DocumentError(Problem.CORRUPT, "the presentation itself is missing: export or upload it again")
    slides = _slides(package, main)
    metadata = package.properties(package.first_related("", "core-properties"))
    return Extracted(numbered(_slide(package, slide) for slide in slides), metadata)


def _slides(package: Package, main: str) -> list[str]:
    related = package.related(main)
    return [
        related[event.attributes["id"]].part
        for event in package.events(main)
        if event.kind == "start" and event.name == "sldId" and event.attributes.get("id") in related
    ]


def _slide(package: Package, slide: str) -> str:
    if not package.has(slide):
        return ""
    blocks = list(_blocks(package.events(slide)))
    for related in package.related(slide).values():
        if related.kind == "diagramData" and package.has(related.part):
            blocks += _blocks(package.events(related.part))
    notes = package.first_related(slide, "notesSlide")
    said = list(_blocks(package.events(notes))) if notes else []
    return "\n\n".join([*blocks, *(["Notes:", *said] if said else [])])


def _blocks(events: Iterable[XmlEvent]) -> Iterator[str]:
    out = BodyText()
    in_text, before, place = False, "", ""
    for event in events:
        if event.kind == "text":
            if in_text and place not in LEFT_OUT_PLACES:
                out.add(event.text)
        elif event.name == "t":
            in_text = event.kind == "start"
        elif event.kind == "start":
            if event.name in ("sp", "graphicFrame"):
                before, place = "", ""
            elif event.name == "ph":
                place = event.attributes.get("type", "")
                before = "# " if place in TITLES else ""
            else:
                _start(out, event.name)
        else:
            _end(out, event.name, before)
    yield from out.taken()


def _start(out: BodyText, name: str) -> None:
    if name == "p":
        out.begin_paragraph()
    elif name == "br":
        out.add("\n")
    elif name == "tbl":
        out.begin_table()
    elif name == "tr":
        out.begin_row()
    elif name == "tc":
        out.begin_cell()


def _end(out: BodyText, name: str, before: str) -> None:
    if name == "p":
        out.end_paragraph(before)
    elif name == "tc":
        out.end_cell()
    elif name == "tr":
        out.end_row()
    elif name == "tbl":
        out.end_table()
