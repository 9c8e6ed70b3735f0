"""Time as an argument: what decides by the clock is handed one, so that a test can hand it another."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of time. Neither blocks nor raises."""

    def now(self) -> float:
        """Return the wall clock in seconds since the epoch; it may jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only ever grow; for durations."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """See `Clock`."""
        return time.time()

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()
