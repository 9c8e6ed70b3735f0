"""Tables on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMES = 19


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]) -> str:
    """Align the rows under their headings."""
    lines = [f"{'':{NAMES}}" + "".join(f"{heading:>{width(heading)}}" for heading in columns)]
    for row in rows:
        cells = (f"{row[key]:>{width(heading)}{form}}" for heading, (key, form) in columns.items())
        lines.append(f"{row['contender']:{NAMES}}" + "".join(cells))
    return "\n".join(lines) + "\n"


def width(heading: str) -> int:
    return max(9, len(heading) + 2)
