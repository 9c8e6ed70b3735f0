"""Somebody holds a row and goes to lunch, or freezes: it is his aggregate's trouble, and nobody else's."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from engine_harness import until
from events_worker.store import transactions
from events_worker.store.partitions import RENEW
from handling_harness import handling
from outbox_harness import Bench, Instance, opened_bench, running
from worker_runtime.outcome import Defer, Done
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from events_worker.context import HandlerContext
    from events_worker.event import EventJob

NEVER = 60.0
# Far less than what a statement that waits for a lock takes to give up.
AT_ONCE = 2.0
LOOKED_AT = "UPDATE domain_event_outbox SET last_error = 'looking into it' WHERE id = $1"
AT_WORK = "SELECT finished FROM domain_event_under_way WHERE event_id = $1 FOR UPDATE"


@pytest.fixture
async def bench(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    async with opened_bench(redis_url, database_url) as made:
        yield made


@asynccontextmanager
async def holding(bench: Bench, statement: str, event_id: str) -> AsyncIterator[None]:
    """Be idle in a transaction that has locked something of an event."""
    async with bench.connected() as database:
        transaction = database.transaction()
        await transaction.start()
        await database.execute(statement, UUID(event_id))
        yield
        await transaction.rollback()


async def test_a_locked_event_is_left_for_later_and_the_others_are_claimed(bench: Bench) -> None:
    (locked,) = await bench.commit()
    async with bench.instance() as instance:
        async with holding(bench, LOOKED_AT, locked):
            (other,) = await bench.commit()
            async with running(instance.loops):
                await until(lambda: holds(bench.waiting(), [other]), within=AT_ONCE)
        async with running(instance.loops):
            await until(lambda: holds(bench.waiting(), [other, locked]))


async def test_an_end_whose_successor_is_locked_leaves_it_to_the_relay(bench: Bench) -> None:
    first, second = await bench.commit(2, aggregate="a")
    async with bench.relaying(poll_seconds=0.05) as relaying:
        await until(lambda: holds(bench.waiting(), [first]))
        async with holding(bench, LOOKED_AT, second), asyncio.timeout(AT_ONCE):
            await relaying.turns.finish(first)
        await until(lambda: holds(bench.waiting(), [first, second]))


async def test_ends_do_not_wait_for_one_whose_turn_is_locked(bench: Bench) -> None:
    """A process froze in a handler's transaction; others run the same event again, and end theirs."""
    locked, *others = await bench.commit(20)
    async with bench.relaying(poll_seconds=NEVER) as relaying:
        await until(lambda: holds(bench.under_way(), 20))
        async with holding(bench, AT_WORK, locked), asyncio.timeout(AT_ONCE):
            ends = asyncio.gather(*map(relaying.turns.finish, [locked, *others]), return_exceptions=True)
            assert [type(end) for end in await ends] == [DatabaseUnavailable, *[type(None)] * 19]
            with pytest.raises(DatabaseUnavailable, match="somebody holds the row"):
                await relaying.turns.note_finished(locked, ["routing"])
            with pytest.raises(DatabaseUnavailable, match="another transaction holds the event's turn"):
                await relaying.turns.bury(locked, "GONE: it is gone", blocks=False)
        assert await bench.under_way() == 1
        await relaying.turns.note_finished(locked, ["routing"])
        assert (await relaying.turns.begin(locked)).finished == {"routing"}
        await relaying.turns.finish(locked)
        assert await bench.under_way() == 0


async def test_a_handler_waits_its_turn_without_an_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "LOCK_SECONDS", 0.3)

    def functions(ran: list[str]) -> list[Any]:
        async def pay(event: EventJob, context: HandlerContext) -> None:
            async with context.transaction():
                ran.append("pay")

        return [pay]

    async with handling(bench, functions) as work:
        (event_id,) = await work.committed()
        async with holding(bench, AT_WORK, event_id):
            outcome = await work.run(event_id)
            assert isinstance(outcome, Defer)
            assert outcome.code == "TURN_TAKEN"
        assert work.ran == []
        assert isinstance(await work.run(event_id), Done)


async def test_a_relay_that_freezes_while_it_renews_loses_its_partitions_all_the_same(bench: Bench) -> None:
    async with (
        bench.instance(lease_seconds=1.0, command_seconds=1.0) as frozen,
        bench.instance(lease_seconds=1.0) as other,
    ):
        await frozen.partitions.balance()
        assert len(frozen.partitions.tokens) == 16
        renewing = asyncio.create_task(freeze_while_renewing(frozen, asyncio.Event()))
        async with running([other.partitions]):
            await until(lambda: owns_all(other))
        renewing.cancel()
        await asyncio.wait({renewing})


async def freeze_while_renewing(instance: Instance, thawed: asyncio.Event) -> None:
    async with instance.database.transaction() as connection:
        await connection.execute(RENEW, instance.partitions._store._instance, 1.0)
        await thawed.wait()


async def owns_all(instance: Instance) -> bool:
    return len(instance.partitions.tokens) == 16


async def holds(question: Awaitable[object], answer: object) -> bool:
    return await question == answer
