"""Plain text and Markdown, which is plain text that we also write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestion_worker.reading import media_types as types
from ingestion_worker.reading.charset import charset_of, pieces_of
from ingestion_worker.reading.flow import LONG_PAGE, NEW_PAGE, numbered, paged
from ingestion_worker.reading.source import Extracted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingestion_worker.reading.source import Source

__all__ = ["extract"]


def extract(source: Source) -> Extracted:
    """Read text in whatever charset; a form feed begins a new page, as printers take it."""
    charset = charset_of(source.path, [("sender", source.charset)])
    pages = numbered(paged(_blocks(pieces_of(source.path, charset)), between=""))
    metadata: dict[str, str | int | float | bool] = {"charset": charset.name, "charsetFrom": charset.known_from}
    return Extracted(pages, metadata, wrapped=source.media_type == types.TEXT)


def _blocks(pieces: Iterator[str]) -> Iterator[str]:
    """Cut at blank lines and form feeds, however the text came in pieces."""
    rest = ""
    for piece in pieces:
        *sheets, rest = (rest + piece.replace("\r\n", "\n")).split(NEW_PAGE)
        for sheet in sheets:
            yield from _paragraphs(sheet)
            yield NEW_PAGE
        *paragraphs, rest = rest.split("\n\n")
        yield from (f"{paragraph}\n\n" for paragraph in paragraphs)
        if len(rest) > LONG_PAGE:
            yield rest
            rest = ""
    yield from _paragraphs(rest)


def _paragraphs(text: str) -> Iterator[str]:
    return (f"{paragraph}\n\n" for paragraph in text.split("\n\n"))
