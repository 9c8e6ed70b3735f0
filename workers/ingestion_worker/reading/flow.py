"""Pages of documents that have none: blocks of text, one after another, cut where a page has grown long enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestion_worker.document import Page

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["LONG_PAGE", "NEW_PAGE", "numbered", "paged"]

# Characters after which a flow begins a new page. A page is held in memory, travels as one line, and is what a person
# is pointed to from a search.
LONG_PAGE = 50_000
# Stands between blocks where the document itself begins a new page.
NEW_PAGE = "\f"


def numbered(texts: Iterable[str]) -> Iterator[Page]:
    """Make a page of each text."""
    return (Page(number, text) for number, text in enumerate(texts, start=1))


def paged(blocks: Iterable[str], between: str = "\n\n") -> Iterator[str]:
    """Gather blocks into texts of pages. A page that the document itself made may be empty, and stays."""
    page: list[str] = []
    length = 0
    for block in blocks:
        if block == NEW_PAGE:
            yield between.join(page)
            page, length = [], 0
            continue
        for piece in _pieces(block):
            if length and length + len(piece) > LONG_PAGE:
                yield between.join(page)
                page, length = [], 0
            page.append(piece)
            length += len(piece)
    yield between.join(page)


def _pieces(block: str) -> Iterator[str]:
    """Cut what is longer than a page, at a space if there is one near."""
    begin = 0
    while len(block) - begin > LONG_PAGE:
        middle, end = begin + LONG_PAGE // 2, begin + LONG_PAGE
        cut = max(block.rfind(" ", middle, end), block.rfind("\n", middle, end)) + 1 or end
        yield block[begin:cut]
        begin = cut
    yield block[begin:] if begin else block
