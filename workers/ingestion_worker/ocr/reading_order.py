"""Lines of a page in the order in which a person reads them, from nothing but where they stand.

Columns of prose are read one after the other; pieces of one row (a label and its value) side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Line", "text_in_reading_order"]

# Of the page's width: what divides columns.
GUTTER = 0.015
# Where a gap is looked for.
GAPS = [share / 100 for share in range(10, 90)]
# A page with more is no page of prose.
MOST_LINES = 1000
# A column of prose has so many lines, most of them at least so wide; others are tables.
FEWEST_LINES, USUAL_WIDTH = 3, 0.15
# Of the lower one's height: two lines overlap so much if they are one row, and are so far apart if a paragraph ends.
SAME_ROW, PARAGRAPH = 0.5, 0.9


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of text and its frame, in shares of the page's width and height."""

    text: str
    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.height


def text_in_reading_order(lines: Sequence[Line]) -> str:
    """Return the text: a row a line, a blank line between paragraphs and between columns."""
    downwards = sorted(lines, key=lambda line: (line.top, line.left))
    parts = _parts(downwards) if len(downwards) <= MOST_LINES else [downwards]
    return "\n\n".join(_paragraphs(part) for part in parts if part)


def _parts(lines: list[Line]) -> list[list[Line]]:
    """Cut a page, whose lines are sorted downwards, into parts that are each read downwards."""
    found = max((_columns(lines, gap) for gap in GAPS), key=lambda cut: cut.end - cut.start, default=NO_COLUMNS)
    if not found.end:
        return [lines]
    stretches = (lines[: found.start], found.left, found.right, lines[found.end :])
    return [part for stretch in stretches if stretch for part in _parts(stretch)]


@dataclass(frozen=True, slots=True)
class Columns:
    """The lines from `start` to before `end`, as two columns."""

    start: int
    end: int
    left: list[Line]
    right: list[Line]


NO_COLUMNS = Columns(0, 0, [], [])


def _columns(lines: list[Line], gap: float) -> Columns:
    """Find the longest stretch of lines of which none crosses the gap, if it is prose on both sides of it."""
    crossing = [number for number, line in enumerate(lines) if line.left < gap + GUTTER and line.right > gap]
    borders = [-1, *crossing, len(lines)]
    start, end = max(((above + 1, below) for above, below in pairwise(borders)), key=lambda run: run[1] - run[0])
    left = [line for line in lines[start:end] if line.right <= gap]
    right = [line for line in lines[start:end] if line.right > gap]
    return Columns(start, end, left, right) if _is_prose(left) and _is_prose(right) else NO_COLUMNS


def _is_prose(lines: list[Line]) -> bool:
    return len(lines) >= FEWEST_LINES and median(line.width for line in lines) >= USUAL_WIDTH


def _paragraphs(lines: list[Line]) -> str:
    rows = _rows(lines)
    text = ""
    for above, row in zip([None, *rows], rows, strict=False):
        text += _break(above, row) + " ".join(line.text for line in row)
    return text


def _break(above: list[Line] | None, row: list[Line]) -> str:
    if above is None:
        return ""
    gap = row[0].top - max(line.bottom for line in above)
    return "\n\n" if gap > PARAGRAPH * row[0].height else "\n"


def _rows(lines: list[Line]) -> list[list[Line]]:
    rows: list[list[Line]] = []
    for line in lines:
        if rows and _in_row(rows[-1][0], line):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: line.left) for row in rows]


def _in_row(first: Line, line: Line) -> bool:
    return min(first.bottom, line.bottom) - line.top > SAME_ROW * line.height
