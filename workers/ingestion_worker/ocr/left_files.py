"""Files that a child left in its folder, opened by the parent with suspicion."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_left"]


def read_left(path: Path, most_bytes: int) -> bytes:
    """Return a file's bytes. Raises OSError for anything but a plain file of at most so many: links lead elsewhere."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor has no path
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most_bytes:
            raise OSError(f"{path.name} is no plain file of at most {most_bytes} bytes")
        return file.read(most_bytes)
