"""What the exit code of `intelliflow` says to a script."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The closed set; 2 is also what argparse uses."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    PARTIAL = 4
    REFUSED = 5
    UNREACHABLE = 6
