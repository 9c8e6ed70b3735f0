"""Deaths at chosen moments: a worker with CHAOS_CRASH_AT=<point> is killed, or freezes, when it first gets there.

Nothing in the product knows of it: its functions are replaced here, in a module that comes with the watched handlers.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import events_worker.worker
from chaos.deaths import HOUR, after, before, die, freeze_once, quicken, step_clock_when_told
from events_worker.handlers.python import PythonHandler
from events_worker.partitions import Partitions
from events_worker.publisher import Publisher
from events_worker.reconciler import Reconciler
from events_worker.store import OutboxStore, PartitionStore, TurnStore, UpkeepStore, transactions
from events_worker.store import partitions as leases
from events_worker.turns import Turns
from events_worker.upkeep import Upkeep
from worker_runtime.bullmq.producer import JobQueue
from worker_runtime.bullmq.scripts import QueueScripts
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

LAST_ATTEMPT = 3


def amid_publishing() -> None:
    """Die when half of a batch is on the queue."""
    original = JobQueue.add_bulk

    async def add_bulk(self: JobQueue, jobs: Any) -> Any:
        if len(jobs) < 2:
            return await original(self, jobs)
        await original(self, jobs[: len(jobs) // 2])
        return die()

    JobQueue.add_bulk = add_bulk  # type: ignore[method-assign]


def amid_archiving() -> None:
    """Die when the statement is on its way."""
    original = UpkeepStore.archive

    async def archive(*arguments: Any) -> Any:
        task = asyncio.create_task(original(*arguments))
        await asyncio.wait({task}, timeout=0.003)
        return die()

    UpkeepStore.archive = archive  # type: ignore[method-assign,assignment]


def amid_renewing_of_leases() -> None:
    """Freeze in the transaction, between two statements, with the partitions' rows locked."""
    original = PartitionStore.balance
    fair_share = leases.FAIR_SHARE

    async def balance(self: PartitionStore, held: Any) -> Any:
        if held and not freeze_once.cache_info().currsize:
            async with self._database.transaction() as connection:
                await connection.execute(leases.SEEN, self._instance, self._lease_seconds)
                await connection.fetchval(fair_share)
                await connection.fetch(leases.RENEW, self._instance, self._lease_seconds)
                freeze_once()
        return await original(self, held)

    PartitionStore.balance = balance  # type: ignore[method-assign]


def with_an_answer_in_hand() -> None:
    """Freeze when PostgreSQL has said whose turn it is, and nobody here has heard yet."""
    original = TurnStore.look

    async def look(*arguments: Any) -> Any:
        answer = await original(*arguments)
        freeze_once()
        return answer

    TurnStore.look = look  # type: ignore[method-assign,assignment]


def with_its_work_done() -> None:
    """Freeze when a handler that takes longer than an answer holds is done, and nobody has been told."""
    original = PythonHandler.handle

    async def handle(self: PythonHandler, *arguments: Any) -> Any:
        outcome = await original(self, *arguments)
        if self.name == "first":
            freeze_once()
        return outcome

    PythonHandler.handle = handle  # type: ignore[method-assign,assignment]


def with_its_last_attempt_failed() -> None:
    """Freeze when a handler has failed for the third time, and nobody has been told."""
    original, failures = PythonHandler.handle, []

    async def handle(self: PythonHandler, *arguments: Any) -> Any:
        try:
            return await original(self, *arguments)
        except Exception:
            failures.append(self.name)
            if failures.count("second") == LAST_ATTEMPT:
                freeze_once()
            raise

    PythonHandler.handle = handle  # type: ignore[method-assign,assignment]


def amid_the_start() -> None:
    """Have PostgreSQL go away once, after it had answered the first question of the start."""
    original, asked = PartitionStore.record, []

    async def record(self: PartitionStore, partitions: int) -> None:
        asked.append(partitions)
        if len(asked) == 1:
            raise DatabaseUnavailable("the database system is shutting down")
        await original(self, partitions)

    PartitionStore.record = record  # type: ignore[method-assign]


POINTS: dict[str, Callable[[], None]] = {
    "claimed": lambda: after(OutboxStore, "claim", lambda _, claimed: claimed),
    "half published": amid_publishing,
    "published": lambda: after(Publisher, "_publish"),
    "first of two done": lambda: after(PythonHandler, "handle", lambda handler, _: handler.name == "first"),
    "receipt noted": lambda: after(Turns, "note_finished"),
    "effects done": lambda: before(Turns, "finish"),
    "ended": lambda: after(TurnStore, "end"),
    "finished": lambda: after(Turns, "finish"),
    "buried": lambda: after(Turns, "bury"),
    "archiving": amid_archiving,
    "renewing locks": lambda: before(QueueScripts, "renew", freeze_once),
    "told whose turn it is": with_an_answer_in_hand,
    "work done": with_its_work_done,
    "last attempt failed": with_its_last_attempt_failed,
    "starting": amid_the_start,
    "renewing leases": amid_renewing_of_leases,
}


def make_haste() -> None:
    """Let leases and looks be short: what takes over after fifteen seconds does so after two as well."""
    events_worker.worker.LEASE_SECONDS = 2.0  # type: ignore[attr-defined]
    transactions.SETTINGS["idle_in_transaction_session_timeout"] = "3s"
    transactions.LOCK_SECONDS = 0.5
    quicken(Partitions, every_seconds=0.3)
    quicken(Reconciler, settled_seconds=1.0, every_seconds=0.3)
    quicken(Upkeep, every_seconds=0.3)


def lay_out() -> None:
    """Prepare what the environment asks for."""
    if os.environ.get("CHAOS_HASTE"):
        make_haste()
    if point := os.environ.get("CHAOS_CRASH_AT"):
        POINTS[point]()
    if hours := os.environ.get("CHAOS_CLOCK_HOURS"):
        step_clock_when_told(float(hours) * HOUR)
