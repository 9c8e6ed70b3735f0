"""Which jobs this process holds, and the loop that keeps their locks, finds those it lost and recovers the orphaned.

The loop outlives draining: a job that is allowed to finish must not lose its lock while it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from worker_runtime.loops import wait_at_most
from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from worker_runtime.bullmq.claimed import Claim, ClaimedJob
    from worker_runtime.bullmq.scripts import QueueScripts

log = structlog.get_logger()


class LeaseCounters(Protocol):
    """The metrics a lease loop moves."""

    def lease_lost(self) -> None:
        """Count a job that somebody else took while it ran here."""
        ...

    def recovered(self, jobs: int) -> None:
        """Count jobs taken from dead workers."""
        ...


@dataclass(eq=False, slots=True)
class Lease:
    """Our hold on one job. `abort` interrupts its handler; `gone` means that we may no longer settle it.

    `ending`: what ends it is on its way to Redis, which may have heard of it before we know.
    """

    job: ClaimedJob
    sequence: int
    # Seconds since the epoch.
    since: float = field(default_factory=time.time)
    scope: asyncio.Timeout | None = None
    gone: bool = False
    ending: bool = False

    def abort(self) -> None:
        """Interrupt the handler now; whoever runs it sees a `TimeoutError` and looks at `gone`."""
        self.gone = True
        if self.scope is not None and not self.scope.expired():
            with contextlib.suppress(RuntimeError):  # It has just ended by itself.
                self.scope.reschedule(asyncio.get_running_loop().time())


class Leases:
    """The jobs in flight of one queue in this process, by id."""

    def __init__(
        self,
        scripts: QueueScripts,
        counters: LeaseCounters,
        *,
        label: str,
        renew_seconds: float,
        stalled_interval_ms: int,
        max_stalls: int,
    ) -> None:
        self._scripts = scripts
        self._counters = counters
        self._label = label
        self._renew_seconds = renew_seconds
        self._stalled_interval_ms = stalled_interval_ms
        self._max_stalls = max_stalls
        self._held: dict[bytes, Lease] = {}
        self._sequence = 0
        self._suspects: set[Claim] = set()
        self._looks_for_orphans = 0

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._held.values()))

    def take(self, job: ClaimedJob) -> Lease:
        """Register a claim. A job that comes back while it still runs here has been lost by the older run."""
        if (older := self._held.pop(job.id, None)) is not None:
            self._lose(older)
        self._sequence += 1
        lease = self._held[job.id] = Lease(job, self._sequence)
        return lease

    def release(self, lease: Lease) -> None:
        """Forget a lease; harmless when a newer run of the same job has taken its place."""
        if self._held.get(lease.job.id) is lease:
            del self._held[lease.job.id]

    def look_for_orphans(self) -> None:
        """An answer got lost: a claim in it may have left a job locked by us that nobody here runs."""
        self._looks_for_orphans = 3

    async def retake(self, lease: Lease) -> bool:
        """Take a lock again that expired during an outage; false when the job is somebody else's or finished."""
        return not await self._scripts.renew([lease.job.id])

    async def keep(self, closed: asyncio.Event) -> None:
        """Renew until `closed`. A failed round is made up by the next: the lock outlives several."""
        loop = asyncio.get_running_loop()
        recover_at = 0.0
        while not closed.is_set():
            try:
                await self._renew()
                await self._hand_back_orphans()
                if loop.time() >= recover_at:
                    # After renewing, never before: else our own pass could take what an outage let expire.
                    await self._recover_stalled()
                    recover_at = loop.time() + self._stalled_interval_ms / 1000
            except (RedisUnavailable, RedisError) as error:
                log.warning("leases_not_renewed", queue=self._label, jobs=len(self._held), error=str(error))
            await wait_at_most(min(self._renew_seconds, max(0.1, recover_at - loop.time())), closed.wait())

    async def _renew(self) -> None:
        held = dict(self._held)
        if not held:
            return
        for job_id in await self._scripts.renew(list(held)):
            if self._held.get(job_id) is held[job_id]:
                self._lose(self._held.pop(job_id))

    def _lose(self, lease: Lease) -> None:
        if lease.ending:
            lease.gone = True
            return
        self._counters.lease_lost()
        log.warning("lease_lost", queue=self._label, jobId=str(lease.job))
        lease.abort()

    async def _recover_stalled(self) -> None:
        recovered = await self._scripts.recover_stalled(
            max_stalls=self._max_stalls, interval_ms=max(1, self._stalled_interval_ms - 100)
        )
        if recovered:
            self._counters.recovered(len(recovered))
            log.warning("stalled_jobs_recovered", queue=self._label, jobs=len(recovered))

    async def _hand_back_orphans(self) -> None:
        """Return a job whose claim is in two looks and run by nobody here: a claim just under way is in one."""
        if not self._looks_for_orphans:
            return
        held = await self._scripts.held_by_us()
        unknown = held - {lease.job.claim for lease in self._held.values()}
        for job_id, _ in unknown & self._suspects:
            await self._scripts.hand_back(job_id)
            log.warning("claim_handed_back", queue=self._label, jobId=job_id.decode("utf-8", "backslashreplace"))
        self._suspects = unknown
        # A look that failed was none.
        self._looks_for_orphans -= 1


def last_claimed_first(leases: Iterable[Lease]) -> list[Lease]:
    """Order jobs for their return: the head of `wait` is filled backwards."""
    return sorted(leases, key=lambda lease: lease.sequence, reverse=True)
