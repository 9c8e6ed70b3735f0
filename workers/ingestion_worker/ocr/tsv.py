"""Tesseract's table of words, as text and as what it is worth."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Reading", "Word", "reading", "words"]

COLUMNS = 12
WORD_LEVEL = "5"
# Below this a character is more likely wrong than right: it speaks against a reading.
EVEN_CHANCE = 0.5


@dataclass(frozen=True, slots=True)
class Word:
    """A word; `place` is its block, paragraph and line, `height` in pixels, `confidence` from 0 to 1."""

    text: str
    confidence: float
    place: tuple[int, int, int]
    height: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What one run has read. Without words there is no `confidence`.

    `worth` compares readings of one picture: it grows with what was read and with how surely. Confidence alone would
    prefer half a page read well to all of it. `height` is that of the usual word, in pixels.
    """

    text: str = ""
    words: int = 0
    confidence: float | None = None
    worth: float = 0.0
    height: float = 0.0


def reading(table: str) -> Reading:
    """Read the table: lines as they stand, a blank line between paragraphs."""
    found = list(words(table))
    if not found:
        return Reading()
    return Reading(
        text=_text(found),
        words=len(found),
        confidence=fmean(word.confidence for word in found),
        worth=sum(len(word.text) * (word.confidence - EVEN_CHANCE) for word in found),
        height=median(word.height for word in found),
    )


def words(table: str) -> Iterator[Word]:
    """Yield the words, in reading order. Rows that hold none (pictures, lines) are passed over."""
    for row in table.splitlines()[1:]:
        cells = row.split("\t", COLUMNS - 1)
        if len(cells) == COLUMNS and cells[0] == WORD_LEVEL and (text := cells[-1].strip()):
            block, paragraph, line = (int(cell) for cell in cells[2:5])
            yield Word(text, min(max(float(cells[10]) / 100, 0.0), 1.0), (block, paragraph, line), int(cells[9]))


def _text(found: Iterable[Word]) -> str:
    paragraphs = groupby(found, key=lambda word: word.place[:2])
    return "\n\n".join(_paragraph(members) for _, members in paragraphs)


def _paragraph(members: Iterable[Word]) -> str:
    lines = groupby(members, key=lambda word: word.place)
    return "\n".join(" ".join(word.text for word in line) for _, line in lines)
