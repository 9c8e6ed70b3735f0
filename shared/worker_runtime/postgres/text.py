"""Text that somebody else wrote, as PostgreSQL can hold it."""

from __future__ import annotations


def storable(text: str) -> str:
    """Write as escapes what PostgreSQL's text cannot hold: one such value would keep all others of its batch out."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
