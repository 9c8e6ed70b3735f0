"""The loop that works jobs: claims as many as there are free slots, runs each, and settles them together."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog
from procrastinate.job_context import AbortReason

from jobs_worker.attempt import Attempt
from worker_runtime.batching import Batcher
from worker_runtime.loops import UNWIND_SECONDS, Heartbeat, wait_at_most
from worker_runtime.postgres import DatabaseUnavailable
from worker_runtime.telemetry import work_span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobs_worker.attempt import Attempts
    from jobs_worker.ending import Claimed, Ending
    from jobs_worker.membership import Membership
    from jobs_worker.store import JobStore
    from worker_runtime.loops import StopSignal
    from worker_runtime.metrics import QueueMetrics

__all__ = ["Jobs"]

log = structlog.get_logger()

MOST_AT_ONCE = 100
AGAIN_SECONDS = 0.2
PATIENCE_SECONDS = (0.1, 0.25, 0.5, 1.0)


class Jobs:
    """Polls every `poll_seconds`, earlier when it hears of something, at once while there is more."""

    name = "jobs"

    def __init__(
        self,
        store: JobStore,
        membership: Membership,
        attempts: Attempts,
        metrics_of: Callable[[str], QueueMetrics],
        *,
        queues: Sequence[str] | None,
        slots: int,
        poll_seconds: float,
        hinted: asyncio.Event,
    ) -> None:
        self.heartbeat = Heartbeat()
        self.drained = asyncio.Event()
        self.handed_back = 0
        self._store = store
        self._membership = membership
        self._attempts = attempts
        self._metrics_of = metrics_of
        self._queues = queues
        self._slots = slots
        self._poll_seconds = poll_seconds
        self._hinted = hinted
        self._at_work: dict[asyncio.Task[None], Attempt] = {}
        self._left_behind: set[asyncio.Future[object]] = set()
        self._settle = Batcher(self._settled, MOST_AT_ONCE)
        # Of a claim whose answer was lost we hold jobs that we do not know.
        self._unsure = False

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`. A stop lets attempts end within its grace, and what is left then is given back."""
        while not stop.requested.is_set():
            self._hinted.clear()
            if not await self.heartbeat.while_waiting(self.claim()):
                await self.heartbeat.while_waiting(self._rest(stop))
        await self.heartbeat.while_waiting(self._drain(stop))

    async def claim(self) -> bool:
        """Take what may run into free slots; tell whether there may be more."""
        free = self._slots - len(self._at_work) - len(self._left_behind)
        if free <= 0 or self._membership.worker is None:
            return False
        try:
            claimed = await self._claimed(self._membership.worker, min(free, MOST_AT_ONCE))
        except DatabaseUnavailable as outage:
            self._unsure = True
            log.warning("job_claim_waits", error=str(outage))
            return False
        for one in claimed:
            self._begin(one)
        return len(claimed) == free

    async def _claimed(self, worker: int, most: int) -> list[Claimed]:
        if not self._unsure:
            return await self._store.claim(self._queues, worker, most)
        known = [attempt.claimed.id for attempt in self._at_work.values()]
        found = await self._store.found(worker, known)
        self._unsure = False
        return found

    def _begin(self, claimed: Claimed) -> None:
        metrics = self._metrics_of(claimed.job.queue)
        metrics.wait.observe(claimed.waited)
        attempt = Attempt(claimed, self._attempts)
        task = asyncio.create_task(self._work(attempt, metrics), name=f"job {claimed.id}")
        self._at_work[task] = attempt
        self._membership.took(attempt)
        metrics.in_flight.inc()
        task.add_done_callback(lambda done: self._ended(done, metrics))

    async def _work(self, attempt: Attempt, metrics: QueueMetrics) -> None:
        job = attempt.claimed.job
        with (
            work_span("job", None, {"job.id": str(job.id), "job.task": job.task_name}),
            structlog.contextvars.bound_contextvars(jobId=job.id, task=job.task_name, attempt=job.attempts + 1),
        ):
            began = time.perf_counter()
            ending = await attempt.run()
            seconds = time.perf_counter() - began
            if await self._settle((attempt.claimed, ending)):
                _count(metrics, attempt, ending, seconds)
            else:
                metrics.lease_lost()
                log.warning("job_lost", reason="it was taken from this worker while it ran: its ending is not written")

    async def _settled(self, endings: Sequence[tuple[Claimed, Ending]]) -> Sequence[bool]:
        """Write endings, however long PostgreSQL does not answer: what was done must be noted."""
        failures = 0
        while True:
            try:
                ours = await self._store.settle(self._membership.known_as, endings)
            except DatabaseUnavailable as outage:
                # It may have been written after all: then it is the same the second time.
                log.warning("job_settling_waits", jobs=len(endings), error=str(outage))
                await asyncio.sleep(PATIENCE_SECONDS[min(failures, len(PATIENCE_SECONDS) - 1)])
                failures += 1
            else:
                return [claimed.id in ours for claimed, _ in endings]

    def _ended(self, task: asyncio.Task[None], metrics: QueueMetrics) -> None:
        attempt = self._at_work.pop(task)
        self._membership.let_go(attempt)
        metrics.in_flight.dec()
        if (thread := attempt.left_behind) is not None and not thread.done():
            log.warning("job_thread_left_behind", task=attempt.claimed.job.task_name)
            self._left_behind.add(thread)
            thread.add_done_callback(self._came_back)
        self._hinted.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug of ours, not of a task: the job is rescued like that of a dead worker.
            log.error("job_broke", jobId=attempt.claimed.id, exc_info=error)

    def _came_back(self, thread: asyncio.Future[object]) -> None:
        self._left_behind.discard(thread)
        if not thread.cancelled():
            thread.exception()
        self._hinted.set()

    async def _rest(self, stop: StopSignal) -> None:
        if not self._at_work:
            self.drained.set()
        # After an outage the next look comes soon, for nobody announces its end.
        seconds = min(AGAIN_SECONDS, self._poll_seconds) if self._unsure else self._poll_seconds
        await wait_at_most(seconds, self._hinted.wait(), stop.requested.wait())
        self.drained.clear()

    async def _drain(self, stop: StopSignal) -> None:
        deadline = asyncio.ensure_future(stop.deadline())
        while self._at_work and not deadline.done():
            await asyncio.wait({deadline, *self._at_work}, return_when=asyncio.FIRST_COMPLETED)
        deadline.cancel()
        await self._hand_back()

    async def _hand_back(self) -> None:
        left = dict(self._at_work)
        for attempt in left.values():
            attempt.abort(AbortReason.SHUTDOWN)
            self._metrics_of(attempt.claimed.job.queue).handed_back(1)
        self.handed_back = len(left)
        if left:
            # Those that end are settled; a thread that does not look is left to the next worker's rescue.
            await asyncio.wait(left, timeout=1.0)
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=UNWIND_SECONDS)


def _count(metrics: QueueMetrics, attempt: Attempt, ending: Ending, seconds: float) -> None:
    if not ending.costs:
        if ending.retry_at is not None:
            metrics.deferred("LATER")
        return
    metrics.finished(seconds)
    if ending.status in ("failed", "todo"):
        metrics.failed.inc()
    if ending.status == "todo":
        metrics.retried(attempt.claimed.job.attempts + 2)
        log.warning("job_attempt_failed", error=ending.error, nextAttemptAt=str(ending.retry_at))
    elif ending.status == "failed":
        metrics.dead_lettered.inc()
        log.error("job_failed", error=ending.error)
