"""EPUB: a page for each chapter, in the order of the spine."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.charset import decoded
from ingestion_worker.reading.extractors.html import blocks_of_html, declared_charset
from ingestion_worker.reading.flow import NEW_PAGE, numbered, paged
from ingestion_worker.reading.package import Package
from ingestion_worker.reading.source import Extracted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ingestion_worker.reading.source import Source

__all__ = ["extract"]

CONTAINER, ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
# Fonts are scrambled in free books too; no text is.
OF_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
# Bytes of a chapter. Whole novels stay below 3 MB.
LONGEST_CHAPTER = 33_554_432
PIECE = 16_384


def extract(source: Source) -> Extracted:
    """Read a book chapter by chapter. Raises ENCRYPTED for one that belongs to a shop's reader."""
    package = Package(source.path)
    _refuse_locked(package)
    book = _book(package)
    metadata = package.properties(book)
    return Extracted(numbered(_pages(package, _chapters(package, book))), metadata)


def _refuse_locked(package: Package) -> None:
    if not package.has(ENCRYPTION):
        return
    ways = {e.attributes.get("Algorithm", "") for e in package.events(ENCRYPTION) if e.name == "EncryptionMethod"}
    if ways - {"", *OF_FONTS}:
        raise DocumentError(Problem.ENCRYPTED, "the book is locked to a shop's reader: send a copy without its lock")


def _book(package: Package) -> str:
    for event in package.events(CONTAINER):
        if event.kind == "start" and event.name == "rootfile" and event.attributes.get("full-path"):
            return event.attributes["full-path"]
    raise DocumentError(Problem.CORRUPT, "the book does not say where it begins: export or upload it again")


def _chapters(package: Package, book: str) -> list[str]:
    folder = posixpath.dirname(book)
    parts: dict[str, str] = {}
    order: list[str] = []
    for event in package.events(book):
        if event.kind != "start":
            continue
        if event.name == "item":
            target = unquote(event.attributes.get("href", "").partition("#")[0])
            parts[event.attributes.get("id", "")] = posixpath.normpath(posixpath.join(folder, target))
        elif event.name == "itemref":
            order.append(event.attributes.get("idref", ""))
    return [parts[name] for name in order if name in parts and package.has(parts[name])]


def _pages(package: Package, chapters: Iterable[str]) -> Iterator[str]:
    for chapter in chapters:
        with package.opened(chapter) as file:
            content = file.read(LONGEST_CHAPTER + 1)
        if len(content) > LONGEST_CHAPTER:
            raise DocumentError(Problem.TOO_LARGE, f"a chapter has more than {LONGEST_CHAPTER} bytes")
        text = decoded(content, [("document", declared_charset(content[:PIECE]))])
        pieces = (text[start : start + PIECE] for start in range(0, len(text), PIECE))
        yield from (page for page in paged(blocks_of_html(pieces, {})) if page and page != NEW_PAGE)
