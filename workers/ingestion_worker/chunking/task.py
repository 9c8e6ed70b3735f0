"""The isolated task `chunk`: pages.ndjson in, chunks.ndjson out, a page at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingestion_worker.chunking.packing import Packer
from ingestion_worker.document import CHUNKS, PAGES, Page, read_lines, write_lines
from ingestion_worker.embeddings.wordpiece import uncased
from ingestion_worker.reading.language import Sample, language_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingestion_worker.document import Chunk
    from ingestion_worker.isolation.task import Desk

__all__ = ["chunk"]

REPORTED_EVERY = 50


def chunk(desk: Desk) -> dict[str, Any]:
    """Cut what `read` wrote. The order holds `tokens`, the most of a chunk, and `overlap`, of which it may repeat.

    With `describe` it tells the `language` and how many `characters` there are: OCR may have added to both.

    Whatever the order's `model`, tokens are those of the local one: see `Packer` for what others make of it.
    """
    packer = Packer(uncased(), tokens=desk.order["tokens"], overlap=desk.order["overlap"])
    tokens, text = 0, Text()

    def counted() -> Iterator[Chunk]:
        nonlocal tokens
        for piece in packer.chunks(text.of(_reported(desk))):
            tokens += piece.tokens
            yield piece

    chunks = write_lines(desk.folder / CHUNKS, counted())
    told = {"characters": text.characters, "language": language_of(text.sample)} if desk.order.get("describe") else {}
    return {"chunks": chunks, "tokens": tokens, **told}


class Text:
    """What passes by: how much, and a sample of it. OCR may have added to what was read first."""

    def __init__(self) -> None:
        self.characters = 0
        self.sample = Sample()

    def of(self, pages: Iterator[Page]) -> Iterator[Page]:
        """Let pages pass."""
        for page in pages:
            self.characters += len(page.text)
            self.sample.add(page.text)
            yield page


def _reported(desk: Desk) -> Iterator[Page]:
    pages = desk.folder / PAGES
    with pages.open("rb") as file:
        total = sum(1 for _ in file)
    for done, page in enumerate(read_lines(pages, Page), 1):
        yield page
        if done % REPORTED_EVERY == 0 or done == total:
            desk.report(done, total)
