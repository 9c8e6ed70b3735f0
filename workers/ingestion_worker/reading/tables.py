"""Tables in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestion_worker.reading.flow import LONG_PAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Row", "sheet_pages", "table"]

# Cells by column; empty ones are left out.
Row = dict[int, str]


def table(rows: Sequence[Mapping[int, str]]) -> str:
    """Write rows as a Markdown table, the first as its head. Columns that are empty in all of them are left out."""
    columns = sorted({column for row in rows for column, cell in row.items() if cell})
    if not columns:
        return ""
    lines = [_line([row.get(column, "") for column in columns]) for row in rows]
    lines.insert(1, "|" + " --- |" * len(columns))
    return "\n".join(lines)


def sheet_pages(name: str, rows: Iterable[Row]) -> Iterator[str]:
    """Write a sheet as pages, each a table below the sheet's name; a table that goes on repeats its head."""
    head: Row = {}
    page: list[Row] = []
    length = 0
    for row in rows:
        head = head or row
        width = sum(map(len, row.values())) + 3 * len(row)
        if length and length + width > LONG_PAGE:
            yield _sheet(name, page)
            page, length = [head], 0
        page.append(row)
        length += width
    # A name alone says nothing: a workbook of blank sheets is empty.
    yield _sheet(name, page) if page else ""


def _sheet(name: str, rows: Sequence[Row]) -> str:
    return "\n\n".join(part for part in (f"# {name}" if name else "", table(rows)) if part)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(cell: str) -> str:
    if "|" in cell:
        cell = cell.replace("|", "\\|")
    return " ".join(cell.split()) if "\n" in cell or "\r" in cell or "\t" in cell else cell.strip()
