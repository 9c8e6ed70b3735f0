"""Deaths at chosen moments of a turn: a worker with CHAOS_CRASH_AT=<point> is killed when it first gets there."""

from __future__ import annotations

import functools
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from chaos.deaths import HOUR, die, quicken, step_clock_when_told
from worker_runtime.bullmq.producer import JobQueue
from worker_runtime.egress import EgressClient
from workflow_worker.execution import Completed, Failing, Suspended
from workflow_worker.leases import Leases
from workflow_worker.store import claims, upkeep
from workflow_worker.store.children import ChildStore
from workflow_worker.store.claims import Claims, ClaimStore
from workflow_worker.store.leases import LeaseStore
from workflow_worker.store.ledger import LedgerStore
from workflow_worker.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from worker_runtime.postgres import Database
    from workflow_worker.store.ledger import Write


def around(owner: Any, name: str, when: str, matters: Callable[..., object] = lambda *_: True) -> None:
    """Die `before` or `after` a method, at its first call whose last argument matters."""
    original = getattr(owner, name)

    async def method(*arguments: Any, **named: Any) -> Any:
        fatal = matters(arguments[-1])
        if fatal and when == "before":
            die()
        returned = await original(*arguments, **named)
        if fatal and when == "after":
            die()
        return returned

    setattr(owner, name, method)


def amid_the_claim() -> None:
    """Die in the transaction of a claim, when its statement has changed something and nothing is committed."""
    original = ClaimStore.claim

    async def claim(self: ClaimStore, free: int, *arguments: Any, **named: Any) -> Any:
        async with self._database.transaction() as connection:
            turn: tuple[Any, ...] = (free, free, [], "")
            if ready := await connection.fetch(claims.READY, *turn, True):  # noqa: FBT003
                near = [list(column) for column in zip(*ready, strict=True)]
                if await connection.fetch(claims.CLAIM, *turn, self._worker, True, *near):  # noqa: FBT003
                    die()
        return await original(self, free, *arguments, **named)

    ClaimStore.claim = claim  # type: ignore[method-assign]


def claimed() -> None:
    """Die when a claim is committed and nothing has begun."""
    original = ClaimStore.claim

    async def claim(*arguments: Any, **named: Any) -> Any:
        returned = await original(*arguments, **named)
        if returned.executions:
            die()
        return returned

    ClaimStore.claim = claim  # type: ignore[method-assign]


def amid_writing(matters: Callable[[Sequence[Write]], object]) -> None:
    """Die when the statements of a write have been executed, and are not committed."""
    original = LedgerStore._written

    async def written(self: LedgerStore, writes: Sequence[Write]) -> Any:
        if matters(writes):
            self._database.transaction = functools.partial(doomed_transaction, self._database)  # type: ignore[method-assign]
        return await original(self, writes)

    LedgerStore._written = written  # type: ignore[method-assign]


@asynccontextmanager
async def doomed_transaction(database: Database) -> AsyncIterator[Any]:
    """Lend a transaction that never comes to its commit."""
    async with database.connected() as connection, connection.transaction():
        yield connection
        die()


def notes_a_step(writes: Sequence[Write]) -> bool:
    """Tell a write that only says which steps are done."""
    return any(write.ending is None and write.records for write in writes)


def ends_as(*kinds: type) -> Callable[[Sequence[Write]], bool]:
    """Return what tells a write by which a turn ends in one of these ways."""
    return lambda writes: any(isinstance(write.ending, kinds) for write in writes)


def fails_and_is_tried_again(writes: Sequence[Write]) -> bool:
    """Tell a write of a failed attempt that is not the last."""
    return any(isinstance(write.ending, Failing) and write.ending.seconds is not None for write in writes)


def dies_for_good(writes: Sequence[Write]) -> bool:
    """Tell a write by which an execution goes to the dead letters."""
    return any(isinstance(write.ending, Failing) and write.ending.seconds is None for write in writes)


WRITES: dict[str, Callable[[Sequence[Write]], bool]] = {
    "step": notes_a_step,
    "retry": fails_and_is_tried_again,
    "suspend": ends_as(Suspended),
    "complete": ends_as(Completed),
    "bury": dies_for_good,
}
POINTS: dict[str, Callable[[], None]] = {
    "claim uncommitted": amid_the_claim,
    "claim committed": claimed,
    "before the effect": lambda: around(EgressClient, "request", "before"),
    "after the effect": lambda: around(EgressClient, "request", "after"),
    "before the job": lambda: around(JobQueue, "add", "before"),
    "after the job": lambda: around(JobQueue, "add", "after"),
    "before the child": lambda: around(ChildStore, "start", "before"),
    "after the child": lambda: around(ChildStore, "start", "after"),
    "before the renewal": lambda: around(LeaseStore, "renew", "before"),
    "after the renewal": lambda: around(LeaseStore, "renew", "after"),
}


def prepare(point: str) -> None:
    """Lay out one of the points; those of writes are `before step`, `step uncommitted`, `after step` and so on."""
    if point in POINTS:
        POINTS[point]()
        return
    for what, matters in WRITES.items():
        if point == f"{what} uncommitted":
            amid_writing(matters)
            return
        if point in (f"before {what}", f"after {what}"):
            around(LedgerStore, "write", point.partition(" ")[0], matters)
            return
    raise ValueError(point)


def wait_at_the_gate(gate: str) -> None:
    """Claim nothing until that file is there: a worker is started ahead of its turn."""
    original = ClaimStore.claim

    async def claim(self: ClaimStore, *arguments: Any, **named: Any) -> Claims:
        return await original(self, *arguments, **named) if os.access(gate, os.F_OK) else Claims((), "")

    ClaimStore.claim = claim  # type: ignore[method-assign]


def make_haste() -> None:
    """Look after leases and messages more often than every second and every half minute."""
    quicken(Leases, every_seconds=0.2)
    quicken(Upkeep, every_seconds=0.5)
    upkeep.STRAY = upkeep.STRAY.replace("interval '1 minute'", "interval '2 seconds'")


def lay_out() -> None:
    """Prepare what the environment asks for."""
    if os.environ.get("CHAOS_HASTE"):
        make_haste()
    if point := os.environ.get("CHAOS_CRASH_AT"):
        prepare(point)
    if gate := os.environ.get("CHAOS_GATE"):
        wait_at_the_gate(gate)
    if hours := os.environ.get("CHAOS_CLOCK_HOURS"):
        step_clock_when_told(float(hours) * HOUR)
