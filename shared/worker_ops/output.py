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
    columns = [_column(name, [row[name] for row in rows]) for name in rows[0]]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def _column(name: str, values: Sequence[object]) -> list[str]:
    """Write one column, all cells of one width: numbers below each other by their ends, texts by their beginnings."""
    cells = [name, *map(_cell, values)]
    width = max(map(len, cells))
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return [cell.rjust(width) for cell in cells]
    return [cell.ljust(width) for cell in cells]


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
