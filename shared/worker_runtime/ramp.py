"""After an outage: one call at a time, after each step twice as many, and in the end as many as there are."""

from __future__ import annotations

import asyncio
import time

STEP_SECONDS = 0.25
STEPS = 6
LOOK_SECONDS = STEP_SECONDS / 10


class Ramp:
    """Lets a dependency that has just come back warm up: its backlog does not fall upon it at once."""

    def __init__(self) -> None:
        self._since = float("-inf")
        self._inside = 0

    def begin(self) -> None:
        """Start with one call at a time."""
        self._since = time.monotonic()

    async def enter(self) -> None:
        """Wait for a place."""
        while (step := self._step()) < STEPS and self._inside >= 2**step:  # noqa: ASYNC110  places come by time
            await asyncio.sleep(LOOK_SECONDS)
        self._inside += 1

    def leave(self) -> None:
        """Give the place to somebody else."""
        self._inside -= 1

    def _step(self) -> float:
        return min(STEPS, (time.monotonic() - self._since) // STEP_SECONDS)
