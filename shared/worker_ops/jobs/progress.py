"""How far a long command has come, told on standard error once in a while."""

from __future__ import annotations

import time

from worker_ops.output import say

__all__ = ["Progress"]

SAY_EVERY_SECONDS = 1.0


class Progress:
    """Counts up to about `total`."""

    def __init__(self, total: int) -> None:
        self.done = 0
        self._total = total
        self._said = time.monotonic()

    def add(self, count: int) -> None:
        """Count what was done, and tell it unless that was just now."""
        self.done += count
        if (now := time.monotonic()) >= self._said + SAY_EVERY_SECONDS:
            self._said = now
            say(f"{self.done} of {self._total}")
