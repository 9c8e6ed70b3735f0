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


class CommandFailed(Exception):
    """A command cannot do what it was asked for: its exit code, and a sentence or several for a person."""

    def __init__(self, code: ExitCode, *reasons: str) -> None:
        super().__init__("\n".join(reasons))
        self.code = code
        self.reasons = reasons
