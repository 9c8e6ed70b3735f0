"""Rows on standard output, for people or for programs; everything else a command says goes to standard error."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

from worker_runtime.health_board import timestamp

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from datetime import datetime

FORMATS = ("table", "json", "ndjson")
# Rows are as wide as their widest cell.
MOST_CELL = 500
# What moves a terminal's cursor, colours it, or turns what follows around: names and errors may be anybody's.
HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

Row = dict[str, Any]


def add_output(parser: argparse.ArgumentParser) -> None:
    """Let a command be told how to write."""
    parser.add_argument("-o", "--output", choices=FORMATS, default="table", help="how to write it (default: table)")


def write_rows(rows: Sequence[Mapping[str, Any]], how: str, out: TextIO | None = None) -> None:
    """Write the rows, which all have the keys of the first; `how` is one of `FORMATS`."""
    (out or sys.stdout).write(_written(rows, how))


def write_record(record: Mapping[str, Any], how: str) -> None:
    """Write one thing with many fields: as a JSON object, or a line for each field."""
    if how == "table":
        width = max(map(len, record))
        lines = (f"{name.ljust(width)}  {_indented(value, width)}\n" for name, value in record.items())
        sys.stdout.write("".join(lines))
    else:
        sys.stdout.write(f"{json.dumps(record, indent=2 if how == 'json' else None)}\n")


def at(moment: datetime | None) -> str | None:
    """Write a time as ISO-8601 in UTC."""
    return None if moment is None else timestamp(moment.timestamp())


def say(message: str) -> None:
    """Tell the person at the terminal."""
    sys.stderr.write(f"{harmless(message)}\n")


def harmless(text: str) -> str:
    """Write as escapes what a terminal would obey instead of show; lines stay lines."""
    return HARMFUL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _written(rows: Sequence[Mapping[str, Any]], how: str) -> str:
    if how == "json":
        return f"{json.dumps(rows, indent=2)}\n"
    if how == "ndjson":
        return "".join(f"{json.dumps(row)}\n" for row in rows)
    return f"{_table(rows)}\n"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "nothing to show"
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numbers = [_are_numbers(column) for column in zip(*(row.values() for row in rows), strict=True)]
    return "\n".join(_line(line, widths, numbers) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> str:
    placed = zip(cells, widths, numbers, strict=True)
    return "  ".join(cell.rjust(width) if number else cell.ljust(width) for cell, width, number in placed).rstrip()


def _are_numbers(column: Sequence[object]) -> bool:
    known = [value for value in column if value is not None]
    return bool(known) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else _short(harmless(str(value)).replace("\t", "\\t").replace("\n", "\\n"))


def _short(cell: str) -> str:
    return cell if len(cell) <= MOST_CELL else f"{cell[: MOST_CELL - 3]}..."


def _indented(value: object, width: int) -> str:
    if isinstance(value, (dict, list)):
        text = json.dumps(value, indent=2, ensure_ascii=False) if value else "-"
    else:
        text = value if isinstance(value, str) else _cell(value)
    return harmless(text).replace("\n", "\n" + " " * (width + 2))
