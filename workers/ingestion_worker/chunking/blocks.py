"""What a page of Markdown consists of: headings, tables, and paragraphs, which is everything else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ingestion_worker.document import Page

__all__ = ["Block", "Kind", "blocks"]

HEADING = re.compile(r"(#{1,6})[ \t]+(\S.*)")
LONGEST_TITLE = 200
# Python and BERT agree that these are no letters, and not whether they are white space.
ODD_SPACES = str.maketrans(dict.fromkeys("\x0b\x0c\x1c\x1d\x1e\x1f\x85", " "))


class Kind(Enum):
    """What a block is, as far as it decides where to cut."""

    HEADING = "heading"
    TABLE = "table"
    PARAGRAPH = "paragraph"
    BLANK = "blank"


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that belong together, without white space around them."""

    kind: Kind
    text: str
    page: int

    @property
    def level(self) -> int:
        """Of a heading, from 1."""
        return len(self.text) - len(self.text.lstrip("#"))

    @property
    def title(self) -> str:
        """Of a heading, cut short if it is no such thing."""
        return " ".join(self.text[: LONGEST_TITLE * 2].strip("# \t").split())[:LONGEST_TITLE]


def blocks(pages: Iterable[Page]) -> Iterator[Block]:
    """Yield the blocks of the pages, each within one page."""
    for page in pages:
        for kind, group in groupby(_lines(page.text.translate(ODD_SPACES)), lambda line: line[0]):
            texts = [text for _, text in group]
            # Headings that follow each other are as many blocks.
            for text in texts if kind is Kind.HEADING else ["\n".join(texts)]:
                if kind is not Kind.BLANK:
                    yield Block(kind, text.strip(), page.number)


def _lines(text: str) -> Iterator[tuple[Kind, str]]:
    """Yield the lines and what they are; in a block of code, a line that begins with # is no heading."""
    in_code = False
    for line in text.split("\n"):
        fence = line.startswith("```")
        in_code ^= fence
        yield Kind.PARAGRAPH if fence or in_code else _kind(line), line


def _kind(line: str) -> Kind:
    start = line.lstrip()
    if not start:
        return Kind.BLANK
    if start.startswith("|"):
        return Kind.TABLE
    return Kind.HEADING if start.startswith("#") and HEADING.match(start) else Kind.PARAGRAPH
