"""Text that somebody else wrote, as PostgreSQL can hold it."""

from __future__ import annotations

from typing import Any


def storable(text: str) -> str:
    """Write as escapes what PostgreSQL's text cannot hold: one such value would keep all others of its batch out."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def storable_json(value: Any) -> Any:
    """Do the same for all texts in a JSON value."""
    match value:
        case str():
            return storable(value)
        case dict():
            return {storable(str(key)): storable_json(of_it) for key, of_it in value.items()}
        case list() | tuple():
            return [storable_json(entry) for entry in value]
    return value
