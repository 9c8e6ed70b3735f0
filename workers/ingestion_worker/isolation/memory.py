"""How the container's memory is shared out: to how many documents at once, and how much to each."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LEAST_CHILD_BYTES", "RESERVED_BYTES", "Portions", "share_out"]

MEBIBYTE = 1 << 20
# For the worker, about 100 MiB, and the fork server: 47 measured, with every module of `PRELOADED`, of which 20 are its
# own and the rest libraries that it shares with children.
RESERVED_BYTES = 176 * MEBIBYTE
# Measured, beyond what is shared: an A4 page of 300 dpi takes Tesseract 65 to 117 MiB, and 20 the child in front of it;
# a DOCX of 40,000 paragraphs 60, an HTML page of 50,000 elements 115. All of them passed with a limit of 100.
LEAST_CHILD_BYTES = 160 * MEBIBYTE
# More than this helps bombs only.
MOST_CHILD_BYTES = 1536 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class Portions:
    """How many tasks run at once, and how many bytes of memory each may take."""

    slots: int
    child_bytes: int


def share_out(container_bytes: int, *, at_most: int, slots: int | None, child_bytes: int | None) -> Portions:
    """Return portions that fit into a container; what is given is kept even if it does not fit.

    At most `at_most` tasks run at once, and one always may.
    """
    free = max(container_bytes - RESERVED_BYTES, 0)
    if slots is None:
        slots = max(1, min(at_most, free // (child_bytes or LEAST_CHILD_BYTES)))
    if child_bytes is None:
        child_bytes = min(max(free // slots, LEAST_CHILD_BYTES), MOST_CHILD_BYTES)
    return Portions(slots, child_bytes)
