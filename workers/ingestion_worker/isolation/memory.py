"""How the container's memory is shared out: to how many documents at once, and how much to each."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LEAST_CHILD_BYTES", "RESERVED_BYTES", "Portions", "share_out"]

MEBIBYTE = 1 << 20
# For the worker and the fork server: 90 and 70 MiB measured, with every module of theirs loaded.
RESERVED_BYTES = 176 * MEBIBYTE
# Tesseract takes 120 MiB for an A4 page of 300 dpi, its parent 20 more; kreuzberg up to 130 beyond what is shared.
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
