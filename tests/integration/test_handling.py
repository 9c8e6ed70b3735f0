"""Handlers and their receipts: what a retry runs, what an outage costs, what is exactly once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from engine_harness import until
from events_worker import dispatcher, frozen
from events_worker.event import EventJob
from handling_harness import Function, Handling, handling
from outbox_harness import Bench, opened_bench
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.outcome import DeadLetter, Defer, Done, Hold, Retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from embedded_stack import PostgresServer
    from events_worker.context import HandlerContext


@pytest.fixture
async def bench(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    async with opened_bench(redis_url, database_url) as made:
        yield made


async def test_a_retry_runs_only_what_failed(bench: Bench) -> None:
    def functions(ran: list[str]) -> Sequence[Function]:
        async def well(event: EventJob, context: HandlerContext) -> str:
            ran.append("well")
            return "fine"

        async def failing_once(event: EventJob, context: HandlerContext) -> None:
            ran.append("failing")
            if ran.count("failing") == 1:
                raise RuntimeError("not yet")

        return [well, failing_once]

    async with handling(bench, functions) as work:
        first, second = await work.committed(2, aggregate="a")
        assert await work.run(first) == Retry("HANDLER_FAILED", "handler failing_once: RuntimeError")
        assert await work.run(first) == Done({"failing_once": None})
        assert sorted(work.ran) == ["failing", "failing", "well"]
        assert await work.published(second)
        # The job runs once more: its worker died before Redis knew that it was done.
        assert await work.run(first) == Done("handled before")
        assert len(work.ran) == 3


async def test_handlers_run_beside_each_other_and_within_their_time(bench: Bench) -> None:
    def functions(ran: list[str]) -> Sequence[Function]:
        met = asyncio.Barrier(2)

        async def one(event: EventJob, context: HandlerContext) -> None:
            await met.wait()

        async def other(event: EventJob, context: HandlerContext) -> None:
            await met.wait()

        async def slow(event: EventJob, context: HandlerContext) -> None:
            await asyncio.Event().wait()

        return [one, other, slow]

    async with handling(bench, functions, timeout_seconds=0.3) as work:
        (event_id,) = await work.committed()
        assert await work.run(event_id) == Retry("TIME_LIMIT", "handler slow: it took longer than 0.3 s")
        assert (await work.instance.turns.begin(event_id)).finished == {"one", "other"}


async def test_a_handler_s_transaction_is_exactly_once(bench: Bench) -> None:
    async with bench.connected() as database:
        await database.execute("CREATE TABLE account (id text PRIMARY KEY, balance int)")
        await database.execute("INSERT INTO account VALUES ('a', 0)")

    def functions(ran: list[str]) -> Sequence[Function]:
        async def pay(event: EventJob, context: HandlerContext) -> None:
            ran.append("pay")
            async with context.transaction() as connection:
                await connection.execute("UPDATE account SET balance = balance + 1")
                if ran.count("pay") == 1:
                    raise RuntimeError("the lights went out before the commit")

        async def flaky(event: EventJob, context: HandlerContext) -> None:
            if len(ran) < 3:
                ran.append("flaky")
                raise RuntimeError("again")

        return [pay, flaky]

    async def balance() -> int:
        async with bench.connected() as database:
            return int(await database.fetchval("SELECT balance FROM account"))

    async with handling(bench, functions) as work:
        (event_id,) = await work.committed()
        assert isinstance(await work.run(event_id), Retry)
        assert await balance() == 0
        outcomes = await asyncio.gather(*(work.run(event_id) for _ in range(5)))
        assert any(isinstance(outcome, Done) for outcome in outcomes)
        assert await balance() == 1


async def test_what_a_handler_does_wrong_in_its_transaction_is_no_outage(bench: Bench) -> None:
    def functions(ran: list[str]) -> Sequence[Function]:
        async def wrong(event: EventJob, context: HandlerContext) -> None:
            async with context.transaction() as connection:
                await connection.execute("SELECT 1 / 0")

        async def timing_out(event: EventJob, context: HandlerContext) -> None:
            async with context.transaction():
                raise TimeoutError("of its own")

        return [wrong, timing_out]

    async with handling(bench, functions) as work:
        (event_id,) = await work.committed()
        outcome = await work.run(event_id)
        assert outcome == Retry(
            "HANDLER_FAILED", "handler wrong: DivisionByZeroError; handler timing_out: TimeoutError"
        )


async def test_what_only_the_commit_finds_wrong_is_the_handler_s_failure(bench: Bench) -> None:
    """Taken for an outage, it would hold the whole queue for ever."""
    async with bench.connected() as database:
        await database.execute("CREATE TABLE seat (number int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        await database.execute("INSERT INTO seat VALUES (1)")

    def functions(ran: list[str]) -> Sequence[Function]:
        async def sit_down(event: EventJob, context: HandlerContext) -> None:
            async with context.transaction() as connection:
                await connection.execute("INSERT INTO seat VALUES (1)")

        return [sit_down]

    async with handling(bench, functions) as work:
        (event_id,) = await work.committed()
        assert await work.run(event_id) == Retry("HANDLER_FAILED", "handler sit_down: UniqueViolationError")
        assert (await work.instance.turns.begin(event_id)).finished == frozenset()


@pytest.mark.parametrize("state", ["53100", "57P01", "25006"], ids=["disk full", "shutdown", "standby"])
async def test_a_server_that_cannot_serve_anybody_is_no_handler_s_failure(bench: Bench, state: str) -> None:
    def functions(ran: list[str]) -> Sequence[Function]:
        async def pay(event: EventJob, context: HandlerContext) -> None:
            async with context.transaction() as connection:
                await connection.execute(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")

        return [pay]

    async with handling(bench, functions) as work:
        (event_id,) = await work.committed()
        assert await work.run(event_id) == Hold("POSTGRES_UNAVAILABLE", "handler pay: PostgreSQL did not answer", 1.0)


async def test_a_backend_that_is_ended_under_a_handler_burns_no_attempt(bench: Bench) -> None:
    def functions(ran: list[str]) -> Sequence[Function]:
        async def wait(event: EventJob, context: HandlerContext) -> None:
            async with context.transaction() as connection:
                ran.append(str(await connection.fetchval("SELECT pg_backend_pid()")))
                await connection.execute("SELECT pg_sleep(60)")

        return [wait]

    async with handling(bench, functions) as work, bench.connected() as database:
        (event_id,) = await work.committed()
        running_it = asyncio.create_task(work.run(event_id))
        await until(lambda: ran_some(work))
        await database.execute("SELECT pg_terminate_backend($1)", int(work.ran[0]))
        assert isinstance(await running_it, Hold)


@pytest.mark.parametrize("reason", ["ODD: a zero\0 in it", "ODD: half an emoji \ud83d"])
async def test_no_reason_is_too_odd_to_be_noted(bench: Bench, reason: str) -> None:
    """One that PostgreSQL refused would keep all other events of the process from their ends."""
    async with handling(bench, lambda _: []) as work:
        (event_id,) = await work.committed()
        assert await work.dispatcher.bury(event_id, "lead.created", reason, 1) is None
        assert (await bench.row(event_id))["last_error"].startswith("ODD: ")


async def test_a_dead_letter_that_redis_did_not_hear_of_is_not_tried_again(bench: Bench) -> None:
    """Its worker was killed between the two; by now a later event of its aggregate may be at work."""

    def functions(ran: list[str]) -> Sequence[Function]:
        async def effect(event: EventJob, context: HandlerContext) -> None:
            ran.append(event.event_id)

        return [effect]

    async with handling(bench, functions) as work:
        first, second = await work.committed(2, aggregate="a")
        await work.dispatcher.bury(first, "lead.created", "GONE: it is gone", 3)
        await until(lambda: work.published(second))
        assert await work.run(first, attempt=3) == DeadLetter("GONE", "it is gone")
        assert work.ran == []
        # Whoever retries it by hand has it tried once more.
        assert isinstance(await work.run(first, attempt=4), Done)
        assert work.ran == [first]


async def test_postgres_away_costs_neither_an_attempt_nor_a_second_effect(
    own_postgres: PostgresServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long a busy machine takes to start it again.
    monkeypatch.setattr(dispatcher, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(frozen, "STALE_SECONDS", 60.0)

    def functions(ran: list[str]) -> Sequence[Function]:
        async def effect(event: EventJob, context: HandlerContext) -> None:
            await asyncio.to_thread(own_postgres.kill)
            # Not before: the test goes on at once, and must find it gone.
            ran.append(event.event_id)

        return [effect]

    async with opened_bench(redis_url, own_postgres.url) as bench, handling(bench, functions) as work:
        first, second = await work.committed(2, aggregate="a")
        running_it = asyncio.create_task(work.run(first))
        await until(lambda: ran_some(work))
        event = EventJob.model_validate_json((await bench.job(first))["data"])
        assert await work.handle(event) == Hold("POSTGRES_UNAVAILABLE", "PostgreSQL did not answer", 1.0)
        await asyncio.to_thread(own_postgres.start)
        assert isinstance(await running_it, Done)
        assert work.ran == [first]
        await until(lambda: work.published(second))


async def test_an_event_that_is_not_published_yet_waits(bench: Bench) -> None:
    async with handling(bench, lambda _: []) as work:
        first, second = await work.committed(2, aggregate="a")
        template = EventJob.model_validate_json((await bench.job(first))["data"])
        outcome = await work.handle(template.model_copy(update={"event_id": second}))
        assert isinstance(outcome, Defer)
        assert outcome.planned


async def test_a_job_past_the_outbox_runs_without_receipts(bench: Bench) -> None:
    def functions(ran: list[str]) -> Sequence[Function]:
        async def add(event: EventJob, context: HandlerContext) -> None:
            async with context.transaction() as connection:
                ran.append(str(await connection.fetchval("SELECT 1")))

        return [add]

    async with handling(bench, functions) as work:
        (event_id,) = await work.committed()
        template = EventJob.model_validate_json((await bench.job(event_id))["data"])
        direct = template.model_copy(update={"event_id": str(uuid4())})
        assert await work.handle(direct) == Done({"add": None})
        assert await work.handle(direct) == Done({"add": None})
        assert work.ran == ["1", "1"]


async def test_a_broken_contract_is_a_dead_letter_that_the_outbox_knows_of(bench: Bench) -> None:
    async with handling(bench, lambda _: []) as work:
        (event_id,) = await bench.commit(payload={"leadId": "l-1"})
        await until(lambda: work.published(event_id))
        outcome = await work.run(event_id)
        assert outcome == DeadLetter("INVALID_PAYLOAD", "email is missing; tenantId is missing")
        assert await work.dispatcher.bury(event_id, "lead.created", "INVALID_PAYLOAD: email is missing", 1) is None
        row = await bench.row(event_id)
        assert (row["status"], row["last_error"]) == ("dead_letter", "INVALID_PAYLOAD: email is missing")


async def test_a_handler_s_context_gives_ids_that_stay_and_queues(bench: Bench) -> None:
    keys: list[str] = []

    def functions(ran: list[str]) -> Sequence[Function]:
        async def tell(event: EventJob, context: HandlerContext) -> None:
            keys.extend([context.idempotency_key, context.id_of("mail")])
            context.log.info("telling")
            await context.enqueue("EVENTS", NewJob("told", {}, job_id=context.id_of("mail")))
            if len(keys) == 2:
                raise RuntimeError("once more")

        return [tell]

    async with handling(bench, functions) as work:
        (event_id,) = await work.committed()
        await work.run(event_id)
        await work.run(event_id)
        assert keys[:2] == keys[2:]
        assert len(set(keys)) == 2
        assert await bench.waiting() == [event_id, keys[1]]


async def ran_some(work: Handling) -> bool:
    return bool(work.ran)


async def holds(question: Awaitable[object], answer: object) -> bool:
    return await question == answer
