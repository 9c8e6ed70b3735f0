"""Dead letters in a person's hands: found, retried, mended, discarded; by one room with two doors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from engine_harness import until
from events_worker.contracts import load_contracts
from events_worker.dead_letters import DeadLetters, Pace, PayloadRefused, refuse_payload
from events_worker.store import DeadLetterStore, Edit, Selection, Standing, UpkeepStore
from outbox_harness import EVENTS, Bench, Instance, opened_bench
from worker_runtime.loops import StopSignal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

ANN = Edit("ann", "the template is mended")
CONTRACTS = load_contracts()
LEAD = '{"leadId": "l-1", "email": "ada@example.com", "tenantId": "t-1"}'


@pytest.fixture
async def bench(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    async with opened_bench(redis_url, database_url) as made:
        yield made


def room(bench: Bench, instance: Instance) -> DeadLetters:
    return DeadLetters(DeadLetterStore(instance.database), bench.queue, CONTRACTS)


async def dead(
    bench: Bench, instance: Instance, ids: Sequence[str], reason: str = "GONE: it is gone", **how: bool
) -> None:
    """Let events die as their jobs do."""
    for event_id in ids:
        await until(lambda event_id=event_id: contains(bench.waiting(), event_id))  # type: ignore[misc]
        await instance.turns.bury(event_id, reason, blocks=how.get("blocks", False))
        await bench.redis.call("LREM", EVENTS.key("wait"), 0, event_id)
        await bench.redis.call("ZADD", EVENTS.key("failed"), int(time.time() * 1000), event_id)
        await bench.redis.call("HSET", EVENTS.key(event_id), "finishedOn", 1, "failedReason", reason)


async def archived(bench: Bench, instance: Instance) -> None:
    async with bench.connected() as database:
        await database.execute(
            "UPDATE domain_event_outbox SET processed_at = now() - interval '8 days' WHERE status = 'dead_letter'"
        )
    await UpkeepStore(instance.database).archive(7)
    assert await bench.count("status = 'dead_letter'") == 0


async def edits(bench: Bench, event_id: str) -> list[dict[str, Any]]:
    async with bench.connected() as database:
        rows = await database.fetch(
            "SELECT verb, edited_by, reason, error_before, payload_before FROM domain_event_edit"
            " WHERE event_id = $1 ORDER BY number",
            UUID(event_id),
        )
    return [dict(row) for row in rows]


async def test_dead_letters_are_found_by_what_they_are(bench: Bench) -> None:
    async with bench.relaying() as instance:
        (lead,) = await bench.commit(aggregate="a")
        (won,) = await bench.commit(event_type="opportunity.won")
        (lost,) = await bench.commit(event_type="opportunity.lost")
        await dead(bench, instance, [lead], "HANDLER_FAILED: handler x: KeyError")
        await dead(bench, instance, [won, lost], "INVALID_PAYLOAD: amount is missing")
        store = DeadLetterStore(instance.database)

        async def found(**which: Any) -> list[str]:
            return [letter.id for letter in await store.find(Selection(**which), 10)]

        now = await store.now()
        assert await found() == [lead, won, lost]
        assert await found(event_type="opportunity.*") == [won, lost]
        assert await found(event_type="opportunity.lost") == [lost]
        assert await found(event_type="opportunity") == []
        assert await found(event_type="*") == [lead, won, lost]
        assert await found(code="INVALID_PAYLOAD") == [won, lost]
        assert await found(code="INVALID") == []
        assert await found(aggregate_type="lead", aggregate_id="a") == [lead]
        assert await found(died_before=now) == [lead, won, lost]
        assert await found(died_after=now) == []
        assert await found(event_ids=[lost, str(uuid4())]) == [lost]
        first, second, third = await store.find(Selection(), 10)
        assert await store.find(Selection(), 1, after=first) == [second]
        assert (first.code, first.error) == ("HANDLER_FAILED", "HANDLER_FAILED: handler x: KeyError")
        plan = await room(bench, instance).plan(Selection())
        assert [(group.code, group.event_type, group.count, group.example) for group in plan.groups] == [
            ("HANDLER_FAILED", "lead.created", 1, lead),
            ("INVALID_PAYLOAD", "opportunity.lost", 1, lost),
            ("INVALID_PAYLOAD", "opportunity.won", 1, won),
        ]
        assert (plan.count, third.event_type) == (3, "opportunity.lost")


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("in_archive", [False, True])
async def test_a_retried_event_runs_again_with_its_receipts_and_its_history(
    bench: Bench, *, blocks: bool, in_archive: bool
) -> None:
    async with bench.relaying(settled_seconds=60.0) as instance:
        (event_id,) = await bench.commit(aggregate="a")
        await until(lambda: holds(bench.waiting(), [event_id]))
        await instance.turns.note_finished(event_id, ["done"])
        await dead(bench, instance, [event_id], blocks=blocks)
        position = (await bench.row(event_id))["position"]
        if in_archive and not blocks:
            await archived(bench, instance)
        elif in_archive:
            await moved_by_hand(bench)
        letters = await DeadLetterStore(instance.database).find(Selection(), 5)
        assert [(letter.id, letter.archived, letter.blocks) for letter in letters] == [(event_id, in_archive, blocks)]
        assert await room(bench, instance).retry([event_id], ANN) == {event_id: "retried"}
        await until(lambda: holds(bench.waiting(), [event_id]))
        turn = await instance.turns.begin(event_id)
        assert (turn.standing, turn.finished, turn.dead_reason) == (Standing.UNDER_WAY, frozenset({"done"}), None)
        row = await bench.row(event_id)
        assert (row["status"], row["retry_count"], row["position"], row["last_error"]) == (
            "processed",
            1,
            position,
            None,
        )
        assert await bench.count("true", "domain_event_outbox_archive") == 0
        assert await edits(bench, event_id) == [
            {
                "verb": "retry",
                "edited_by": "ann",
                "reason": "the template is mended",
                "error_before": "GONE: it is gone",
                "payload_before": None,
            }
        ]
        await instance.turns.finish(event_id)
        assert (await instance.turns.begin(event_id)).standing is Standing.HANDLED


async def moved_by_hand(bench: Bench) -> None:
    """As the runbook's weekly SQL does it, which knows nothing of receipts."""
    async with bench.connected() as database:
        await database.execute("DELETE FROM domain_event_outbox WHERE status = 'dead_letter'")


async def test_what_was_copied_by_hand_is_one_dead_letter_and_dies_once(bench: Bench) -> None:
    async with bench.relaying() as instance:
        (event_id,) = await bench.commit()
        await dead(bench, instance, [event_id])
        async with bench.connected() as database:
            await database.execute("INSERT INTO domain_event_outbox_archive SELECT * FROM domain_event_outbox")
        dead_letters = room(bench, instance)
        assert (await dead_letters.plan(Selection())).count == 1
        await dead_letters.retry([event_id], ANN)
        await until(lambda: contains(bench.waiting(), event_id))
        await instance.turns.finish(event_id)
        await moved_by_hand(bench)
        assert (await dead_letters.plan(Selection())).count == 0


async def test_an_event_gets_another_payload_and_keeps_the_one_it_had(bench: Bench) -> None:
    async with bench.relaying() as instance:
        bad, other = await bench.commit(2)
        await dead(bench, instance, [bad, other], "INVALID_PAYLOAD: email is missing")
        dead_letters = room(bench, instance)
        for payload, why in (
            ("{", "not readable as JSON"),
            ("[]", "not a JSON object"),
            ('{"leadId": "l-1", "tenantId": "t"}', "email is missing"),
            (LEAD.replace("l-1", "\\u0000"), "NUL"),
        ):
            with pytest.raises(PayloadRefused, match=why):
                await dead_letters.retry([bad], ANN, payload)
        with pytest.raises(PayloadRefused, match="exactly one"):
            await dead_letters.retry([bad, other], ANN, LEAD)
        assert await bench.count("status = 'dead_letter'") == 2
        exact = LEAD.replace("}", ', "amount": 0.12345678901234567890}')
        assert await dead_letters.retry([bad], ANN, exact) == {bad: "retried"}
        await until(lambda: contains(bench.waiting(), bad))
        assert '"amount": 0.12345678901234567890' in (await bench.job(bad))["data"]
        (edit,) = await edits(bench, bad)
        assert edit["payload_before"] == '{"leadId": "l-1"}'
        assert edit["error_before"] == "INVALID_PAYLOAD: email is missing"


async def test_what_is_no_dead_letter_is_left_alone_and_said(bench: Bench) -> None:
    async with bench.relaying() as instance:
        fine, gone = await bench.commit(2)
        await dead(bench, instance, [gone])
        nobody = str(uuid4())
        outcomes = await room(bench, instance).retry([fine, gone, nobody], ANN)
        assert outcomes == {fine: "its status is processed", gone: "retried", nobody: "not found"}
        assert await edits(bench, fine) == []


@pytest.mark.parametrize("in_archive", [False, True])
async def test_discarding_lets_the_aggregate_go_on_and_keeps_the_row(bench: Bench, *, in_archive: bool) -> None:
    async with bench.relaying(poll_seconds=60.0) as instance:
        first, second = await bench.commit(2, aggregate="a")
        async with bench.connected() as database:
            await database.execute("NOTIFY domain_event_outbox")
        await dead(bench, instance, [first], blocks=True)
        if in_archive:
            await moved_by_hand(bench)
        dead_letters = room(bench, instance)
        edit = Edit("ann", "a test lead")
        assert await dead_letters.discard([first], edit) == {first: "discarded"}
        # At once: the relay was told.
        await until(lambda: holds(bench.waiting(), [second]))
        row = await bench.row(first)
        assert row["status"] == "dead_letter"
        assert row["last_error"] == "DISCARDED: a test lead (by ann; it was: GONE: it is gone)"
        assert await bench.redis.call("ZCARD", EVENTS.key("failed")) == 0
        assert (await UpkeepStore(instance.database).lag()).dead == 0
        assert (await dead_letters.plan(Selection())).count == 0
        assert (await dead_letters.plan(Selection(code="DISCARDED"))).count == 1
        (kept,) = await edits(bench, first)
        assert (kept["verb"], kept["reason"], kept["error_before"]) == ("discard", "a test lead", "GONE: it is gone")
        # Twice is once; and whoever thinks again may retry it.
        assert await dead_letters.discard([first], edit) == {first: "discarded"}
        assert (await bench.row(first))["last_error"] == row["last_error"]
        assert await dead_letters.retry([first], ANN) == {first: "retried"}


async def test_what_is_at_work_is_not_discarded(bench: Bench) -> None:
    async with bench.relaying() as instance:
        first, second = await bench.commit(2, aggregate="a")
        await dead(bench, instance, [first], blocks=True)
        # Somebody retries the job on a board: it waits.
        await bench.redis.call("HDEL", EVENTS.key(first), "finishedOn")
        outcomes = await room(bench, instance).discard([first], ANN)
        assert outcomes == {first: "its job is waiting or at work"}
        assert await bench.under_way("blocks") == 1
        assert second not in await bench.waiting()


async def test_a_retried_event_whose_job_somebody_ran_meanwhile_is_handled_once(bench: Bench) -> None:
    async with bench.instance() as instance:
        (event_id,) = await bench.commit()
        await instance.partitions.balance()
        await instance.store.claim(10, instance.partitions.tokens)
        await instance.turns.bury(event_id, "GONE: it is gone", blocks=False)
        assert await room(bench, instance).retry([event_id], ANN) == {event_id: "retried"}
        # The failed job was retried on a board, and ends before the relay looks.
        await instance.turns.finish(event_id)
        assert await instance.store.claim(10, instance.partitions.tokens) == []
        assert (await instance.turns.begin(event_id)).standing is Standing.HANDLED


async def test_an_archived_event_whose_job_somebody_retries_runs_and_is_dead_no_more(bench: Bench) -> None:
    async with bench.relaying() as instance:
        (event_id,) = await bench.commit()
        await dead(bench, instance, [event_id])
        await archived(bench, instance)
        assert (await instance.turns.begin(event_id)).standing is Standing.UNDER_WAY
        await instance.turns.finish(event_id)
        assert await bench.count("status = 'processed'", "domain_event_outbox_archive") == 1
        assert (await instance.turns.begin(event_id)).standing is Standing.HANDLED


async def test_all_of_a_kind_are_retried_in_chunks_and_none_twice(bench: Bench) -> None:
    async with bench.instance() as instance:
        ids = await bench.commit(2_500)
        others = await bench.commit(3, event_type="opportunity.won")
        async with bench.connected() as database:
            await database.execute(
                "UPDATE domain_event_outbox SET status = 'dead_letter', last_error = 'GONE: gone', processed_at = now()"
            )
        dead_letters = room(bench, instance)
        chunks: list[int] = []
        async for retried in dead_letters.retry_all(
            Selection(event_type="lead.*"), ANN, pace=Pace(), stop=StopSignal()
        ):
            chunks.append(retried)
            async with bench.connected() as database:
                # They die again at once.
                await database.execute(
                    "UPDATE domain_event_outbox SET status = 'dead_letter', processed_at = clock_timestamp()"
                    " WHERE status = 'pending'"
                )
        assert chunks == [1_000, 1_000, 500]
        assert await bench.count("retry_count = 1") == len(ids)
        assert await bench.count("retry_count = 0") == len(others)


async def test_a_rate_is_kept_and_a_stop_ends_it_between_two_chunks(bench: Bench) -> None:
    assert [(Pace(rate).chunk, Pace(rate).seconds) for rate in (100.0, 3.0, 50_000.0)] == [
        (20, 0.2),
        (1, 1 / 3),
        (1_000, 0.02),
    ]
    async with bench.instance() as instance:
        await bench.commit(100)
        async with bench.connected() as database:
            await database.execute(
                "UPDATE domain_event_outbox SET status = 'dead_letter', last_error = 'GONE: gone', processed_at = now()"
            )
        dead_letters, stop = room(bench, instance), StopSignal()
        started = time.monotonic()
        limited = [n async for n in dead_letters.retry_all(Selection(), ANN, pace=Pace(100.0), stop=stop, most=30)]
        assert limited == [20, 10]
        assert time.monotonic() - started >= 0.3
        chunks = 0
        async for _ in dead_letters.retry_all(Selection(), ANN, pace=Pace(100.0), stop=stop):
            chunks += 1
            stop.request(0)
        assert chunks == 1
        assert await bench.count("status = 'pending'") == 50


async def test_all_of_a_kind_are_discarded(bench: Bench) -> None:
    async with bench.instance() as instance:
        await bench.commit(1_200)
        async with bench.connected() as database:
            await database.execute(
                "UPDATE domain_event_outbox SET status = 'dead_letter', last_error = 'GONE: gone', processed_at = now()"
            )
        selection = Selection(code="GONE")
        chunks = [n async for n in room(bench, instance).discard_all(selection, ANN, stop=StopSignal())]
        assert chunks == [1_000, 200]
        assert (await UpkeepStore(instance.database).lag()).dead == 0


def test_a_payload_without_a_contract_may_be_any_object() -> None:
    assert refuse_payload("invoice.paid", "1.0", '{"anything": 1}', CONTRACTS) is None


async def holds(question: Awaitable[object], answer: object) -> bool:
    return await question == answer


async def contains(question: Awaitable[list[str]], member: str) -> bool:
    return member in await question
