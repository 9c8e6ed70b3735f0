"""Which executions this process believes to have, and the beat that keeps them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import structlog

from worker_runtime.loops import Heartbeat
from worker_runtime.postgres import DatabaseUnavailable
from workflow_worker.execution import LeaseLost

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from worker_runtime.loops import StopSignal
    from workflow_worker.execution import Execution, Lease
    from workflow_worker.store.leases import LeaseStore

__all__ = ["Held", "Leases"]

log = structlog.get_logger()

EVERY_SECONDS = 1.0
AGAIN_SECONDS = 0.2
# A belief that is older than this part of the lease is asked about before the next effect.
TRUSTED_PART = 2 / 3
RENEWED_PART = 1 / 3


class Held:
    """A lease as its holder sees it, by the monotonic clock of this process."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.may_go_on = True
        self.cancel_requested = execution.cancel_requested
        # The turn, which is cancelled when the lease is lost.
        self.task: asyncio.Task[None] | None = None
        self.renewed_at = time.monotonic()

    @property
    def lease(self) -> Lease:
        """The lease."""
        return self.execution.lease

    def lose(self) -> None:
        """Interrupt the turn: nothing may be written for it any more."""
        if self.task is not None:
            self.task.cancel()

    @property
    def is_surely_ours(self) -> bool:
        """Whether nobody can have taken it, however long this process has stood still."""
        return time.monotonic() - self.renewed_at < self.execution.visibility_seconds * TRUSTED_PART

    @property
    def is_due(self) -> bool:
        """Whether it is time to renew it."""
        return time.monotonic() - self.renewed_at > self.execution.visibility_seconds * RENEWED_PART - EVERY_SECONDS


class Leases:
    """The loop that renews what is held; outlives the others, since turns that drain need it."""

    name = "workflow-leases"

    def __init__(self, store: LeaseStore, *, every_seconds: float = EVERY_SECONDS) -> None:
        self.heartbeat = Heartbeat()
        self._store = store
        self._held: dict[UUID, Held] = {}
        self._every_seconds = every_seconds

    def add(self, held: Held) -> None:
        """Keep a lease from now on; an older one of the same execution was lost without our hearing of it."""
        if (older := self._held.get(held.lease.execution_id)) is not None:
            older.lose()
        self._held[held.lease.execution_id] = held

    def remove(self, held: Held) -> None:
        """Let go of a lease whose turn is over."""
        if self._held.get(held.lease.execution_id) is held:
            del self._held[held.lease.execution_id]

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`."""
        while not stop.requested.is_set() or self._held:
            await self.heartbeat.while_waiting(self.renew())
            await self.heartbeat.while_waiting(_rest(stop, self._every_seconds))

    async def renew(self) -> None:
        """Renew what is due, and tell turns what is lost, cancelled or paused."""
        if due := [held for held in self._held.values() if held.is_due]:
            try:
                await self._renew(due)
            except DatabaseUnavailable as outage:
                log.warning("workflow_leases_not_renewed", executions=len(due), error=str(outage))

    async def confirm(self, held: Held) -> None:
        """Return once the lease is surely ours, however long PostgreSQL does not answer; raises `LeaseLost`."""
        while not held.is_surely_ours:
            with contextlib.suppress(DatabaseUnavailable):
                await self._renew([held])
            if not held.is_surely_ours:
                await asyncio.sleep(AGAIN_SECONDS)
            if self._held.get(held.lease.execution_id) is not held:
                raise LeaseLost(str(held.lease.execution_id))

    async def _renew(self, due: Sequence[Held]) -> None:
        asked_at = time.monotonic()
        standings = await self._store.renew([(held.lease, held.execution.visibility_seconds) for held in due])
        for held in due:
            standing = standings.get(held.lease.execution_id)
            if standing is None:
                log.warning("workflow_lease_lost", executionId=str(held.lease.execution_id))
                self.remove(held)
                held.lose()
            else:
                if standing.renewed:
                    held.renewed_at = asked_at
                held.may_go_on, held.cancel_requested = standing.may_go_on, standing.cancel_requested


async def _rest(stop: StopSignal, seconds: float) -> None:
    # Once a stop is requested, only time can end a rest.
    await (asyncio.sleep(min(seconds, AGAIN_SECONDS)) if stop.requested.is_set() else stop.sleep(seconds))
