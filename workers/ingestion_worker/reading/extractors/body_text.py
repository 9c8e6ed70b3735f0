"""Paragraphs and tables as office programs nest them, written as blocks of Markdown."""

from __future__ import annotations

from ingestion_worker.reading.tables import table

__all__ = ["BodyText"]

# Rows of a table after which it is written down, for a table may be a document long.
LONG_TABLE = 1_000


class BodyText:
    """Takes paragraphs, rows and cells as they begin and end, and gives out blocks.

    A table within a cell becomes text of that cell. What is missing (an end, a row around a cell) does no harm.
    """

    def __init__(self) -> None:
        self.blocks: list[str] = []
        self._text: list[str] = []
        self._outer: list[list[str]] = []
        self._tables: list[_Table] = []

    @property
    def in_table(self) -> bool:
        """Whether a table is open."""
        return bool(self._tables)

    def add(self, text: str) -> None:
        """Go on with the paragraph."""
        self._text.append(text)

    def begin_paragraph(self) -> None:
        """Begin a paragraph; one may begin within another (text boxes), which goes on after it."""
        self._outer.append(self._text)
        self._text = []

    def end_paragraph(self, before: str = "") -> None:
        """End the paragraph. `before` is put in front of it, if there is any of it."""
        text = "".join(self._text).strip(" \t\r\n")
        self._text = self._outer.pop() if self._outer else []
        if text:
            self.block(" ".join(text.split()) if before.startswith("#") else text, before)

    def block(self, text: str, before: str = "") -> None:
        """Put down a whole block, into a cell where one is open."""
        if self._tables and self._tables[-1].is_open:
            self._tables[-1].add(text)
        else:
            self.blocks.append(before + text)

    def begin_table(self) -> None:
        """Begin a table."""
        self._tables.append(_Table())

    def begin_row(self) -> None:
        """Begin a row of it."""
        if self._tables:
            self._tables[-1].rows.append({})

    def begin_cell(self, repeated: int = 1) -> None:
        """Begin a cell, which may stand for several."""
        if self._tables:
            self._tables[-1].begin_cell(repeated)

    def end_cell(self) -> None:
        """End the cell."""
        if self._tables:
            self._tables[-1].is_open = False

    def end_row(self) -> None:
        """End the row. The rows of a long table are written down, below its head again."""
        if len(self._tables) == 1 and len(self._tables[0].rows) >= LONG_TABLE:
            self.blocks.append(table(self._tables[0].rows))
            self._tables[0].rows = self._tables[0].rows[:1]

    def end_table(self) -> None:
        """End the table."""
        if not self._tables:
            return
        rows = self._tables.pop().rows
        if self._tables:
            self.block("; ".join(", ".join(cell for cell in row.values() if cell) for row in rows))
        elif written := table(rows):
            self.blocks.append(written)

    def taken(self) -> list[str]:
        """Return the blocks that are done, and forget them."""
        blocks, self.blocks = self.blocks, []
        return blocks


class _Table:
    def __init__(self) -> None:
        self.rows: list[dict[int, str]] = []
        self.is_open = False
        self._column = -1
        self._next = 0
        self._row: dict[int, str] | None = None

    def begin_cell(self, repeated: int) -> None:
        if not self.rows:
            self.rows.append({})
        if self._row is not self.rows[-1]:
            self._row, self._next = self.rows[-1], 0
        self._column, self._next = self._next, self._next + max(repeated, 1)
        self.is_open = True

    def add(self, text: str) -> None:
        before = self.rows[-1].get(self._column)
        self.rows[-1][self._column] = f"{before} {text}" if before else text
