"""Ends what takes too long, with one timer for all that runs: an `asyncio.timeout` of its own costs a job 4 us."""

from __future__ import annotations

import asyncio


class TimeLimit:
    """The same number of seconds for each, so that the first to begin is the first whose time is over."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        # By scope, the first to begin first: the loop's time at which it must have ended.
        self._deadlines: dict[asyncio.Timeout, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> asyncio.Timeout:
        """Return a scope to enter at once, which is interrupted as that of `asyncio.timeout(seconds)` is."""
        scope, loop = asyncio.timeout(None), asyncio.get_running_loop()
        self._deadlines[scope] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._interrupt)
        return scope

    def end(self, scope: asyncio.Timeout) -> None:
        """Forget a scope that has been left. Its timer stays for those that came after it."""
        self._deadlines.pop(scope, None)

    def _interrupt(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        for scope, deadline in list(self._deadlines.items()):
            if deadline > loop.time():
                self._timer = loop.call_at(deadline, self._interrupt)
                return
            del self._deadlines[scope]
            scope.reschedule(loop.time())
