"""Rows on standard output, for people or for programs; everything else a command says goes to standard error."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMATS = ("table", "json", "ndjson")

Row = dict[str, Any]


def write_rows(rows: Sequence[Mapping[str, Any]], how: str, out: TextIO | None = None) -> None:
    """Write the rows, which all have the keys of the first; `how` is one of `FORMATS`."""
    (out or sys.stdout).write(f"{_written(rows, how)}\n")


def say(message: str) -> None:
    """Tell the person at the terminal."""
    sys.stderr.write(f"{message}\n")


def _written(rows: Sequence[Mapping[str, Any]], how: str) -> str:
    if how == "json":
        return json.dumps(rows, indent=2)
    if how == "ndjson":
        return "\n".join(json.dumps(row) for row in rows)
    return _table(rows)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "nothing to show"
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = [
        cell.ljust(width) if index == 0 else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join([first, *rest])


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
