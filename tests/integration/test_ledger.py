"""Who may send: the same promises by both ledgers, on real servers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest_asyncio

from notifications_worker.callbacks.effects import DeliveryState, RecordedUpdates, StatusReport
from notifications_worker.channel import Reply
from notifications_worker.ledger import Attempt, Closed, DeliveryId, RedisLedger, Sending
from notifications_worker.store import HistoryStore, PostgresLedger
from worker_runtime.delivery_state import AlreadySent, DeliveryRecords, Doubtful, Free, InProgress, RateLimits
from worker_runtime.postgres import BY_INDEX, Database
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from notifications_worker.ledger import Ledger

A = Sending(DeliveryId("t-1", "n-1", "EMAIL"), "email:a", 1, "ada@example.com", "e-1")
B = replace(A, job="email:b")


def ended(outcome: str, **more: Any) -> Attempt:
    return Attempt("smtp", time.time(), 0.01, outcome, **more)


AGE = "UPDATE notification_delivery SET changed_at = now() - interval '8 days' WHERE notification_id < 'n-2'"
EDITED = """
INSERT INTO notification_edit (verb, tenant_id, notification_id, channel, edited_by)
SELECT 'replay', tenant_id, notification_id, channel, 'ann' FROM notification_delivery
"""
STRANGE = Reply(code="\0", text="\0\ud800", remote="\ud800", signed_by=("\0",))
ACCEPTED = {"provider_message_id": "<id@host>"}


@asynccontextmanager
async def connected(redis_url: str) -> AsyncIterator[RedisConnection]:
    redis = RedisConnection(redis_url, client_name="test", timeout_seconds=5)
    await redis.open()
    yield redis
    await redis.close()


@asynccontextmanager
async def in_postgres(database_url: str) -> AsyncIterator[PostgresLedger]:
    async with (
        Database(database_url, settings=BY_INDEX) as looks,
        Database(database_url, settings=BY_INDEX) as begins,
        Database(database_url, settings=BY_INDEX) as ends,
    ):
        yield PostgresLedger(looks, begins, ends)


@pytest_asyncio.fixture(params=["redis", "postgres"])
async def ledger(request: pytest.FixtureRequest) -> AsyncIterator[Ledger]:
    if request.param == "redis":
        async with connected(request.getfixturevalue("redis_url")) as redis:
            yield RedisLedger(DeliveryRecords(redis, "intelliflow"))
    else:
        async with in_postgres(request.getfixturevalue("database_url")) as ledger:
            yield ledger


async def test_one_sends_and_the_other_learns_of_it(ledger: Ledger) -> None:
    assert await ledger.look(A) == Free()
    assert await ledger.begin(A, "smtp") == Free()
    busy = await ledger.begin(B, "smtp")
    assert isinstance(busy, InProgress)
    assert 600 < busy.seconds <= 630
    assert isinstance(await ledger.look(B), InProgress)

    await ledger.ended(A, ended("accepted", **ACCEPTED))

    for standing in (await ledger.look(B), await ledger.begin(B, "smtp"), await ledger.look(A)):
        assert isinstance(standing, AlreadySent)
        assert standing.provider_message_id == "<id@host>"
        assert abs(standing.sent_at - time.time()) < 60


async def test_another_tenant_or_channel_is_another_delivery(ledger: Ledger) -> None:
    await ledger.begin(A, "smtp")

    for delivery in (DeliveryId("t-2", "n-1", "EMAIL"), DeliveryId("t-1", "n-1", "SMS"), DeliveryId("t", "1:n-1", "")):
        assert await ledger.begin(replace(B, delivery=delivery), "smtp") == Free()


async def test_what_surely_nobody_got_is_free_again(ledger: Ledger) -> None:
    await ledger.begin(A, "smtp")
    await ledger.ended(A, ended("retried", unsent=True, code="GREYLISTED", reason="later"))

    assert await ledger.begin(B, "smtp") == Free()


async def test_the_job_of_a_dead_worker_goes_on_and_knows_of_the_doubt(ledger: Ledger) -> None:
    before = time.time()
    await ledger.begin(A, "smtp")

    for standing in (await ledger.look(A), await ledger.begin(A, "smtp"), await ledger.begin(A, "smtp")):
        assert isinstance(standing, Doubtful)
        assert before - 1 < standing.since < time.time() + 1


async def test_doubt_stays_until_somebody_says_accepted(ledger: Ledger) -> None:
    await ledger.begin(A, "smtp")
    await ledger.ended(A, ended("unknown"))
    assert isinstance(await ledger.begin(B, "smtp"), Doubtful)
    await ledger.ended(B, ended("retried", unsent=True))
    assert isinstance(await ledger.begin(A, "smtp"), Doubtful)
    # The other one was only slow. What it says is true whoever has the right by now.
    await ledger.ended(B, ended("accepted", **ACCEPTED))

    await ledger.ended(A, ended("rejected", unsent=True))
    assert isinstance(await ledger.look(A), AlreadySent)


async def test_of_a_crowd_one_begins(ledger: Ledger) -> None:
    crowd = [replace(A, job=f"email:{number}") for number in range(60)]
    standings = await asyncio.gather(*(ledger.begin(one, "smtp") for one in crowd))

    assert Counter(map(type, standings)) == {Free: 1, InProgress: 59}


async def test_of_many_notifications_each_begins_once(database_url: str) -> None:
    many = [
        replace(A, delivery=DeliveryId("t-1", f"n-{number % 50}", "EMAIL"), job=f"j{number}") for number in range(200)
    ]
    async with in_postgres(database_url) as one, in_postgres(database_url) as other:
        asked = [(one if number % 3 else other).begin(sending, "smtp") for number, sending in enumerate(many)]
        standings = await asyncio.gather(*asked)

    assert Counter(map(type, standings)) == {Free: 50, InProgress: 150}


async def test_strange_text_keeps_nobody_else_out(ledger: Ledger) -> None:
    strange = Sending(DeliveryId("a\0b", "\ud800", "EMAIL"), "email:x\0", 1, "\0@\ud800", "\0\ud800", {"a": "\0\ud800"})
    standings = await asyncio.gather(*(ledger.begin(one, "smtp") for one in (A, strange)))
    assert standings == [Free(), Free()]
    await ledger.ended(strange, ended("accepted", provider_message_id="\0\ud800", reason="\0", reply=STRANGE))
    assert isinstance(await ledger.look(strange), AlreadySent)


async def test_the_record_tells_every_attempt(database_url: str) -> None:
    reply = Reply(421, "4.3.2", "try later", "192.0.2.1", ("k1", "k0"))
    refused = ended("deferred", unsent=True, code="PROVIDER_UNAVAILABLE", reason="closed", reply=reply)
    async with in_postgres(database_url) as ledger:
        await ledger.begin(A, "smtp")
        await ledger.ended(A, refused)
        await ledger.ended(A, refused)
        await ledger.begin(A, "smtp")
        await ledger.ended(A, ended("accepted", **ACCEPTED))
    delivery, *more = await rows(database_url, "SELECT * FROM notification_delivery")
    first, second, *rest = await rows(database_url, "SELECT * FROM notification_attempt ORDER BY id")

    assert (more, rest) == ([], [])
    assert (delivery["state"], delivery["recipient"], delivery["event_id"]) == ("accepted", "ada@example.com", "e-1")
    assert (first["outcome"], first["code"], first["status"], first["status_code"]) == (
        "deferred",
        "PROVIDER_UNAVAILABLE",
        421,
        "4.3.2",
    )
    assert (first["said"], first["remote"], first["signed_by"]) == ("try later", "192.0.2.1", ["k1", "k0"])
    assert (second["outcome"], second["milliseconds"], second["signed_by"]) == ("accepted", 10, [])


async def test_a_delivery_that_ends_without_a_provider_is_recorded(database_url: str) -> None:
    async with in_postgres(database_url) as ledger:
        await ledger.close(A, Closed("suppressed", "SUPPRESSED", "OPTED_OUT"))
        await ledger.close(A, Closed("suppressed", "SUPPRESSED", "OPTED_OUT"))
        assert await ledger.begin(B, "smtp") == Free()
        await ledger.ended(B, ended("accepted", **ACCEPTED))
        await ledger.close(A, Closed("expired", "EXPIRED", "late"))
        await ledger.buried("email:b", "TIME_LIMIT", "too long")
    (row,) = await rows(database_url, "SELECT state, code, job FROM notification_delivery")

    assert tuple(row) == ("accepted", None, "email:b")


async def test_a_dead_letter_is_recorded(database_url: str) -> None:
    async with in_postgres(database_url) as ledger:
        await ledger.begin(A, "smtp")
        await ledger.ended(A, ended("retried", unsent=True))
        await ledger.buried(A.job, "TIME_LIMIT", "too long")
    (row,) = await rows(database_url, "SELECT state, code, reason FROM notification_delivery")

    assert tuple(row) == ("dead", "TIME_LIMIT", "too long")


async def test_later_word_of_a_provider_counts_once(database_url: str) -> None:
    async with in_postgres(database_url) as ledger, Database(database_url) as database:
        history = HistoryStore(database)
        await ledger.begin(A, "twilio")
        await ledger.ended(A, replace(ended("accepted", provider_message_id="SM1"), provider="twilio"))

        assert await history.said_later("twilio", "SM2", "delivered", None) is None
        assert await history.said_later("twilio", "SM1", "undelivered", "30005") is True
        assert await history.said_later("twilio", "SM1", "delivered", None) is False
        assert isinstance(await ledger.look(B), AlreadySent)


async def test_old_deliveries_are_forgotten_and_those_at_work_are_not(database_url: str) -> None:
    async with in_postgres(database_url) as ledger, Database(database_url) as database:
        for number, outcome in enumerate(("accepted", "retried", "accepted")):
            one = replace(A, delivery=DeliveryId("t-1", f"n-{number}", "EMAIL"))
            await ledger.begin(one, "smtp")
            await ledger.ended(one, ended(outcome, unsent=outcome == "retried"))
        await rows(database_url, AGE)
        await rows(database_url, EDITED)

        assert await HistoryStore(database).forget(7, 100) == 1
    left = await rows(database_url, "SELECT notification_id FROM notification_attempt ORDER BY 1")
    assert [row[0] for row in left] == ["n-1", "n-2"]
    left = await rows(database_url, "SELECT notification_id FROM notification_edit ORDER BY 1")
    assert [row[0] for row in left] == ["n-1", "n-2"]


async def test_limits_are_exact_and_send_a_crowd_home_one_by_one(redis_url: str) -> None:
    async with connected(redis_url) as redis:
        rates = RateLimits(redis, "intelliflow")
        waits = await asyncio.gather(*(rates.take("tenant:EMAIL:t-1", 5, 10_000) for _ in range(20)))
        assert waits.count(0.0) == 5
        later = sorted(wait for wait in waits if wait)
        assert 9 < later[0] <= 10
        assert len(set(later)) == 15
        assert later[-1] > 30
        assert await rates.take("tenant:EMAIL:t-2", 5, 10_000) == 0


async def test_within_no_stretch_of_time_are_there_more_than_allowed(redis_url: str) -> None:
    async with connected(redis_url) as one, connected(redis_url) as other:
        taken: list[float] = []

        async def worker(rates: RateLimits) -> None:
            while len(taken) < 40:
                wait = await rates.take("x", 10, 200)
                if wait == 0:
                    taken.append(time.monotonic())
                await asyncio.sleep(wait)

        await asyncio.gather(*(worker(RateLimits(redis, "intelliflow")) for redis in (one, other) for _ in range(5)))
    # What Redis counted at one moment is noted here a little later: the margin.
    assert all(taken[index + 10] - taken[index] > 0.15 for index in range(len(taken) - 10))


async def rows(database_url: str, statement: str) -> list[Any]:
    connection = await asyncpg.connect(database_url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


async def test_a_callback_that_is_quicker_than_our_note_is_not_lost(database_url: str) -> None:
    report = StatusReport("twilio", "SM1", DeliveryState.DELIVERED)
    async with in_postgres(database_url) as ledger, Database(database_url) as database:
        await ledger.begin(A, "twilio")
        reporting = asyncio.create_task(RecordedUpdates(HistoryStore(database)).update(report))
        await asyncio.sleep(0.1)  # The report is there, the note is not.
        await ledger.ended(A, replace(ended("accepted", provider_message_id="SM1"), provider="twilio"))
        await reporting
    (row,) = await rows(database_url, "SELECT state FROM notification_delivery")

    assert row["state"] == "delivered"
