"""Being a worker in the eyes of the database: the beat, and what it says of the jobs in hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from procrastinate.job_context import AbortReason

from jobs_worker.ending import WorkerGone
from worker_runtime.loops import Heartbeat
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs_worker.attempt import Attempt
    from jobs_worker.store import JobStore
    from worker_runtime.loops import StopSignal

__all__ = ["BEATS_PER_SILENCE", "Membership"]

log = structlog.get_logger()

# Ten beats may be lost before anybody misses a worker.
BEATS_PER_SILENCE = 12
AGAIN_SECONDS = 0.5
SOON_SECONDS = 0.2


class Membership:
    """The loop that registers, beats, and leaves last of all: attempts that drain need it."""

    name = "job-membership"

    def __init__(self, store: JobStore, joined: Callable[[], None], *, every_seconds: float) -> None:
        self.heartbeat = Heartbeat()
        self._store = store
        # Told when there are jobs to be had at last.
        self._joined = joined
        self._every_seconds = every_seconds
        self._held: dict[int, Attempt] = {}
        # `None` while there is none: nothing is claimed then.
        self.worker: int | None = None
        # The latest id, under which endings are written: a wrong one writes nothing.
        self.known_as = 0

    def took(self, attempt: Attempt) -> None:
        """Look after an attempt."""
        self._held[attempt.claimed.id] = attempt

    def let_go(self, attempt: Attempt) -> None:
        """Look after it no more."""
        if self._held.get(attempt.claimed.id) is attempt:
            del self._held[attempt.claimed.id]

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`."""
        while not stop.requested.is_set() or self._held:
            pause = await self.heartbeat.while_waiting(self.beat())
            # Once a stop is requested, only time can end a rest.
            rest = asyncio.sleep(SOON_SECONDS) if stop.requested.is_set() else stop.sleep(pause)
            await self.heartbeat.while_waiting(rest)
        await self.heartbeat.while_waiting(self._leave())

    async def beat(self) -> float:
        """Register or beat once; return the seconds until the next."""
        try:
            if self.worker is None:
                self.worker = self.known_as = await self._store.register()
                log.info("job_worker_registered", workerId=self.worker)
                self._joined()
            else:
                self._compare(await self._store.beat(self.worker))
        except WorkerGone:
            # It was silent for so long that its jobs have been given to others.
            log.warning("job_worker_was_given_up", workerId=self.worker, jobs=len(self._held))
            self.worker = None
            return 0.0
        except DatabaseUnavailable as outage:
            log.warning("job_heartbeat_waits", error=str(outage))
            return AGAIN_SECONDS
        return self._every_seconds

    def _compare(self, held: dict[int, bool]) -> None:
        for job, attempt in self._held.items():
            if held.get(job):
                attempt.abort(AbortReason.USER_REQUEST)

    async def _leave(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            try:
                await self._store.leave(worker)
            except DatabaseUnavailable as outage:
                # The row is pruned in time.
                log.info("job_worker_left_without_a_word", error=str(outage))
