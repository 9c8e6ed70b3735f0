"""The loop that runs executions: claims what is ready, as far as there are slots, and sees each turn to its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import structlog

from worker_runtime.loops import UNWIND_SECONDS, Heartbeat, wait_at_most
from worker_runtime.postgres import DatabaseUnavailable
from worker_runtime.telemetry import work_span
from workflow_worker.execution import Cancelled, Completed, Ending, Failing, LeaseLost, Released, Suspended
from workflow_worker.leases import Held
from workflow_worker.queue import LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker_runtime.loops import StopSignal
    from worker_runtime.metrics import QueueMetrics
    from workflow_worker.execution import Execution
    from workflow_worker.leases import Leases
    from workflow_worker.presence import Presence
    from workflow_worker.store.claims import Claims, ClaimStore
    from workflow_worker.turn import Turn

__all__ = ["Executions"]

log = structlog.get_logger()

# Beyond its slots a worker has some more for organisations of which nothing runs here: none waits for another's work.
NEWCOMERS_PART = 5
# The queue says when something is due. That it may have been purged is no reason to walk all organisations each time.
LOOK_SECONDS = 1.0


class Executions:
    """Polls every `poll_seconds`, earlier when it knows of something, at once while there is more."""

    name = "workflow-executions"

    def __init__(
        self,
        store: ClaimStore,
        leases: Leases,
        presence: Presence,
        turn_of: Callable[[Held], Turn],
        metrics: QueueMetrics,
        *,
        slots: int,
        poll_seconds: float,
        hinted: asyncio.Event,
    ) -> None:
        self.heartbeat = Heartbeat()
        self.drained = asyncio.Event()
        self.handed_back = 0
        self._store = store
        self._leases = leases
        self._presence = presence
        self._turn_of = turn_of
        self._metrics = metrics
        self._slots = slots
        self._most = slots + max(1, slots // NEWCOMERS_PART)
        self._poll_seconds = poll_seconds
        self._hinted = hinted
        self._cursor = ""
        self._most_at_once = self._most
        self._looked_at = float("-inf")
        self._turns: dict[asyncio.Task[None], Turn] = {}
        metrics.in_flight.set_function(lambda: len(self._turns))

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`. A stop lets steps that are under way end, and what is left then is given back."""
        while not stop.requested.is_set():
            self._hinted.clear()
            found = await self.heartbeat.while_waiting(self.claim())
            if not found:
                await self.heartbeat.while_waiting(self._rest(stop))
        await self.heartbeat.while_waiting(self._drain(stop))

    def in_flight(self) -> list[dict[str, Any]]:
        """Return what is at work, as `/health/detailed` shows jobs; may be called from another thread."""
        now = time.monotonic()
        return [
            {
                "queue": LABEL,
                "jobId": str(turn.held.execution.id),
                "name": turn.held.execution.workflow or f"rule {turn.held.execution.rule_id}",
                "ageMs": round((now - turn.began) * 1000),
            }
            for turn in list(self._turns.values())
        ]

    async def claim(self) -> bool:
        """Take what is ready into free slots; tell whether there may be more for slots that are still free."""
        free = min(self._most - len(self._turns), self._most_at_once)
        if free <= 0:
            return False
        try:
            claims = await self._claims(free)
        except DatabaseUnavailable as outage:
            log.warning("workflow_claim_waits", error=str(outage))
            # They may have more behind them than can be read in time: one at a time goes always.
            self._most_at_once = 1
            return False
        self._most_at_once = self._most
        self._cursor = claims.cursor
        for execution in claims.executions:
            self._begin(execution)
        self._presence.claimed(claims.executions)
        return bool(claims.executions)

    @property
    def _has_a_suspect(self) -> bool:
        return any(turn.held.execution.is_suspect for turn in self._turns.values())

    async def _claims(self, free: int) -> Claims:
        holders = {turn.held.execution.organization_id for turn in self._turns.values()}
        for_any = max(0, self._slots - len(self._turns))
        now = time.monotonic()
        look = now - self._looked_at >= LOOK_SECONDS
        claims = await self._store.claim(
            free, for_any, holders, self._cursor, look=look, suspect=not self._has_a_suspect
        )
        if look and for_any and not claims.executions:
            # While looks bring something, or there is no room for it, there may be more that no message tells of.
            self._looked_at = now
        return claims

    def _begin(self, execution: Execution) -> None:
        if execution.crash_count:
            self._metrics.recovered(1)
        if execution.waited_seconds is not None:
            self._metrics.wait.observe(execution.waited_seconds)
        held = Held(execution)
        turn = self._turn_of(held)
        task = asyncio.create_task(self._take(turn), name=f"execution {execution.id}")
        held.task = task
        self._leases.add(held)
        self._turns[task] = turn
        task.add_done_callback(self._ended)

    async def _take(self, turn: Turn) -> None:
        execution, started = turn.held.execution, time.perf_counter()
        with (
            work_span("workflow", execution.trace, {"workflow.execution.id": str(execution.id)}),
            structlog.contextvars.bound_contextvars(
                executionId=str(execution.id), organizationId=execution.organization_id
            ),
        ):
            ending = await turn.run()
            self._count(ending, execution, time.perf_counter() - started)

    def _count(self, ending: Ending | None, execution: Execution, seconds: float) -> None:
        metrics = self._metrics
        match ending:
            case None:
                metrics.lease_lost()
            case Completed() | Cancelled():
                metrics.finished(seconds)
            case Failing(error, delay):
                metrics.finished(seconds)
                metrics.failed.inc()
                if delay is None:
                    metrics.dead_lettered.inc()
                    log.error("workflow_dead_lettered", error=error)
                else:
                    metrics.retried(execution.retry_count + 2)
                    log.warning("workflow_attempt_failed", error=error, nextAttemptInSeconds=round(delay, 3))
            case Released(reason):
                metrics.deferred("RELEASED")
                log.info("workflow_released", reason=reason)
            case Suspended():
                pass

    def _ended(self, task: asyncio.Task[None]) -> None:
        turn = self._turns.pop(task)
        self._leases.remove(turn.held)
        self._hinted.set()
        if task.cancelled():
            if not turn.stopping:
                self._metrics.lease_lost()
        elif (error := task.exception()) is not None:
            # A bug of ours, not of a workflow: its lease ends by itself, and another worker tries.
            log.error("workflow_turn_broke", executionId=str(turn.held.lease.execution_id), exc_info=error)
            self._metrics.lease_lost()

    async def _rest(self, stop: StopSignal) -> None:
        seconds = self._poll_seconds
        if not self._turns:
            self.drained.set()
        await wait_at_most(seconds, self._hinted.wait(), stop.requested.wait())
        self.drained.clear()

    async def _drain(self, stop: StopSignal) -> None:
        for turn in self._turns.values():
            turn.stopping = True
        if self._turns:
            await wait_at_most_until(stop, list(self._turns))
        await self._hand_back(dict(self._turns))

    async def _hand_back(self, left: dict[asyncio.Task[None], Turn]) -> None:
        for task in left:
            task.cancel()
        if not left:
            return
        await asyncio.wait(left, timeout=UNWIND_SECONDS)
        self.handed_back = len(left)
        self._metrics.handed_back(len(left))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.gather(*(_given_back(turn) for turn in left.values()))


async def _given_back(turn: Turn) -> None:
    with contextlib.suppress(LeaseLost):
        await turn.give_back("its worker stopped")


async def wait_at_most_until(stop: StopSignal, tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for all of the tasks, or for the stop's deadline."""
    deadline = asyncio.ensure_future(stop.deadline())
    left = set(tasks)
    while left and not deadline.done():
        await asyncio.wait({deadline, *left}, return_when=asyncio.FIRST_COMPLETED)
        left = {task for task in left if not task.done()}
    deadline.cancel()
