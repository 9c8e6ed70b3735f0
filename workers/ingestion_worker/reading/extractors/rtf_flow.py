"""Paragraphs of an RTF, of which every word says what the one that ends next is: of a table, a list, a heading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestion_worker.reading.extractors.body_text import BodyText
from ingestion_worker.reading.flow import NEW_PAGE

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Flow"]

DEEPEST_HEADING = 6


class Flow:
    """The text of the document, or of a header, a footer or a note."""

    def __init__(self) -> None:
        self._out = BodyText()
        self._said: set[str] = set()
        self._in_table = False  # Whether the paragraph belongs to one.
        self._open: set[str] = set()  # Of the table, its row and its cell those that have begun.
        self._level: int | None = None
        self._mark = ""

    @property
    def has_blocks(self) -> bool:
        """Whether there is something to take."""
        return bool(self._out.blocks)

    def taken(self) -> list[str]:
        """Return the blocks that are done, and forget them."""
        return [composed(block) for block in self._out.taken()]

    def finished(self) -> list[str]:
        """Return the last of them, the one that nobody ended among them."""
        self.end_paragraph()
        self._end_table()
        return self.taken()

    def add(self, text: str) -> None:
        """Go on with the paragraph."""
        self._out.add(text)

    def mark(self, text: str) -> None:
        """Take a number or a bullet in front of the paragraph."""
        self._mark = f"{text} " if any(map(str.isalnum, text)) else "- "

    def say_once(self, blocks: Iterable[str]) -> None:
        """Put blocks down, unless they were before: first pages and left pages mostly repeat a header."""
        for block in blocks:
            if block not in self._said:
                self._said.add(block)
                self._out.block(block)

    def obey(self, word: str, number: int | None) -> None:
        """Take a word about paragraphs and tables."""
        match word:
            case "par" | "sect":
                self.end_paragraph()
            case "page":
                self._end_page()
            case "pard":
                self._in_table, self._level = False, None
            case "intbl":
                self._in_table = True
            case "cell":
                self._begin_cell()
                self.end_paragraph()
                self._out.end_cell()
                self._open.discard("cell")
            case "row":
                self._out.end_row()
                self._open -= {"cell", "row"}
            case "outlinelevel":
                self._level = number

    def end_paragraph(self) -> None:
        """End the paragraph; the next one is like it until something else is said."""
        if self._in_table:
            self._begin_cell()
        else:
            self._end_table()
        self._out.end_paragraph(self._before())
        self._mark = ""

    def _end_page(self) -> None:
        """Begin a page, but none within a table, which is kept whole."""
        if not self._in_table:
            self.end_paragraph()
            self._out.blocks.append(NEW_PAGE)

    def _before(self) -> str:
        if self._level is not None and 0 <= self._level < DEEPEST_HEADING:
            return "#" * (self._level + 1) + " "
        return self._mark

    def _begin_cell(self) -> None:
        begin = {"table": self._out.begin_table, "row": self._out.begin_row, "cell": self._out.begin_cell}
        for part, begins in begin.items():
            if part not in self._open:
                self._open.add(part)
                begins()

    def _end_table(self) -> None:
        if self._open:
            self._open.clear()
            self._out.end_table()


def composed(text: str) -> str:
    """Put letters together that RTF writes as two halves."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
