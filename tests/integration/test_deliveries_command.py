"""`intelliflow deliveries`: what it shows, and that what is replayed arrives once more under its old id."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redis
from psycopg.types.json import Jsonb

from command_line import Operator, operator
from notifications_worker.ledger import Attempt, DeliveryId, Sending
from notifications_worker.store import PostgresLedger
from worker_runtime.delivery_state import AlreadySent, Free, InProgress
from worker_runtime.postgres import Database
from worker_suite import Suite, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedded_stack import Mailbox
    from worker_runtime.delivery_state import Standing

__all__ = ["operator"]

MAIL, HOOK = "intelliflow:notifications:email", "intelliflow:notifications:webhook"
DELIVERY = """
INSERT INTO notification_delivery
       (tenant_id, notification_id, channel, job, recipient, state, code, reason, payload, accepted_at, lease_until,
        changed_at, provider, provider_message_id)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, CASE WHEN %s = 'accepted' THEN now() END, now() + %s::interval,
        clock_timestamp() - %s::interval, 'smtp', '<abc@host.example>')
"""
ATTEMPT = """
INSERT INTO notification_attempt
       (tenant_id, notification_id, channel, attempt, provider, started_at, milliseconds, outcome, code, reason, status,
        status_code, said, remote, signed_by)
VALUES ('t-1', %s, 'EMAIL', %s, 'smtp', '2026-11-22T09:00:00Z', 12, 'retried', 'GREYLISTED', 'later', 451, '4.7.1',
        'try later, ada@example.com', '192.0.2.1', '{k1}')
"""


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def payload(name: str, *, tenant: str = "t-1", **more: Any) -> dict[str, Any]:
    content = {"subject": "Hello", "body": "Hello Ada"}
    recipient = {"email": "ada@example.com"}
    notification = {"notificationId": name, "tenantId": tenant, "channel": "EMAIL"}
    return {**notification, "recipient": recipient, "content": content, **more}


def delivery(
    operator: Operator,
    name: str,
    state: str = "dead",
    code: str | None = "MAILBOX_FULL",
    *,
    tenant: str = "t-1",
    channel: str = "EMAIL",
    recipient: str = "ada@example.com",
    job: str | None = None,
    kept: Any = None,
    lease: str = "-1 hour",
    age: str = "1 minute",
) -> None:
    values = [tenant, name, channel, job or f"{MAIL}:{name}", recipient, state, code, "ada@example.com is full"]
    operator.database.execute(DELIVERY, [*values, None if kept is None else Jsonb(kept), state, lease, age])


def failed(store: redis.Redis, name: str, data: Any, queue: str = MAIL) -> None:
    store.hset(f"{queue}:{name}", mapping={"data": json.dumps(data), "timestamp": 1, "finishedOn": 2})
    store.zadd(f"{queue}:failed", {name: 1})


def waiting(store: redis.Redis, queue: str = MAIL) -> list[str]:
    ids: Any = store.lrange(f"{queue}:wait", 0, -1)
    return list(reversed(ids))


def outcomes(rows: Any) -> dict[str, str]:
    return {row["notificationId"]: row["outcome"] for row in rows}


def test_deliveries_are_listed_grouped_and_masked(operator: Operator) -> None:
    delivery(operator, "n-1", age="3 hours")
    delivery(operator, "n-2", "accepted", None, age="2 hours")
    delivery(operator, "n-3", channel="SMS", recipient="+436601234567", tenant="t-2", age="1 hour")
    delivery(operator, "n-4", channel="WEBHOOK", recipient="https://u:p@hooks.example/x?token=1", age="1 minute")

    rows = operator.json("deliveries list")

    assert [row["notificationId"] for row in rows] == ["n-4", "n-3", "n-2", "n-1"]
    assert [row["recipient"] for row in rows] == ["https://hooks.example/***", "***67", *["***@example.com"] * 2]
    assert rows[3]["reason"] == "***@example.com is full"
    assert operator.json("deliveries list --channel SMS --reveal")[0]["recipient"] == "+436601234567"
    for line, expected in (
        ("--state accepted", ["n-2"]),
        ("--tenant t-2", ["n-3"]),
        ("--code MAILBOX_FULL --channel EMAIL", ["n-1"]),
        ("--older-than 90m", ["n-2", "n-1"]),
        ("--newer-than 90m", ["n-4", "n-3"]),
        ("--recipient ADA@example.com", ["n-2", "n-1"]),
    ):
        assert [row["notificationId"] for row in operator.json(f"deliveries list {line}")] == expected
    groups = operator.json("deliveries list --group --state dead")
    assert sorted((row["channel"], row["code"], row["count"]) for row in groups) == [
        ("EMAIL", "MAILBOX_FULL", 1),
        ("SMS", "MAILBOX_FULL", 1),
        ("WEBHOOK", "MAILBOX_FULL", 1),
    ]
    limited = operator.run("deliveries list --limit 1 -o ndjson")
    assert len(limited.out.splitlines()) == 1
    assert "and 3 more" in limited.err
    assert operator.run("deliveries list --state sent").code == 2


def test_show_tells_every_attempt_and_masks_people(operator: Operator) -> None:
    delivery(operator, "n-1", kept=payload("n-1"))
    for attempt in (1, 2):
        operator.database.execute(ATTEMPT, ["n-1", attempt])

    shown = operator.json("deliveries show n-1")

    assert (shown["state"], shown["recipient"], shown["providerMessageId"]) == ("dead", "***@example.com", "abc")
    assert shown["payloadKept"] is True
    assert "ada@" not in json.dumps(shown)
    first, second = shown["attemptsMade"]
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert first == {
        "at": "2026-11-22T09:00:00.000Z",
        "attempt": 1,
        "provider": "smtp",
        "outcome": "retried",
        "code": "GREYLISTED",
        "reason": "later",
        "milliseconds": 12,
        "status": 451,
        "statusCode": "4.7.1",
        "said": "try later, ***@example.com",
        "remote": "192.0.2.1",
        "signedBy": ["k1"],
    }
    revealed = operator.json("deliveries show n-1 --reveal")
    assert (revealed["recipient"], revealed["payload"]) == ("ada@example.com", payload("n-1"))
    assert "GREYLISTED" in operator.run("deliveries show n-1").out
    assert operator.run("deliveries show n-2").code == 3


def test_a_notification_of_two_tenants_is_named_with_its_tenant(operator: Operator) -> None:
    for tenant in ("t-1", "t-2"):
        delivery(operator, "n-1", tenant=tenant, kept=payload("n-1", tenant=tenant))
    for line in ("show n-1", "replay n-1 --apply"):
        said = operator.run(f"deliveries {line}")
        assert (said.code, "name --tenant" in said.err) == (2, True)
    assert operator.json("deliveries show n-1 --tenant t-2")["tenantId"] == "t-2"
    assert operator.json("deliveries replay n-1 --tenant t-2 --apply")[0]["outcome"] == "replayed"


def test_nothing_is_replayed_until_it_is_applied(operator: Operator, store: redis.Redis) -> None:
    delivery(operator, "n-1")
    failed(store, "n-1", payload("n-1"))

    dry = operator.run("deliveries replay n-1 -o json")
    assert (dry.code, dry.rows[0]["count"], waiting(store)) == (5, 1, [])
    assert "1 notifications again; do it with --apply" in dry.err

    done = operator.json("deliveries replay n-1 --apply --by ann", "--reason", "the mailbox was emptied")
    assert outcomes(done) == {"n-1": "replayed"}
    (job,) = waiting(store)
    assert json.loads(store.hget(f"{MAIL}:{job}", "data") or "") == payload("n-1")
    shown = operator.json("deliveries show n-1")
    assert (shown["state"], shown["job"]) == ("waiting", f"{MAIL}:{job}")
    (edit,) = shown["history"]
    assert (edit["verb"], edit["by"], edit["reason"], edit["stateBefore"]) == (
        "replay",
        "ann",
        "the mailbox was emptied",
        "dead",
    )


def test_what_cannot_be_replayed_says_why(operator: Operator, store: redis.Redis) -> None:
    expired = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    delivery(operator, "gone")
    delivery(operator, "expired", kept=payload("expired", expiresAt=expired))
    delivery(operator, "busy", "sending", lease="1 hour", kept=payload("busy"))
    delivery(operator, "queued", "waiting", kept=payload("queued"))
    store.hset(f"{MAIL}:queued", "timestamp", 1)
    delivery(operator, "strange", job=f"{MAIL}:other", kept=None)
    failed(store, "other", payload("other"))
    delivery(operator, "fine", kept=payload("fine"))

    said = operator.run("deliveries replay gone expired busy queued strange fine nobody --apply -o json")

    assert said.code == 4
    assert outcomes(said.rows) == {
        "gone": "nothing is left to send it from: its record keeps no payload, and its job is gone",
        "expired": "its expiresAt has passed",
        "busy": "somebody is at it, or it has changed since",
        "queued": "its job waits or is at work",
        "strange": "its job's data is no notification of that id",
        "fine": "replayed",
        "nobody": "nothing is known of it",
    }
    assert len(waiting(store)) == 1
    assert operator.run("deliveries replay gone --apply").code == 3
    assert operator.run("deliveries replay nobody --apply").code == 3
    assert operator.value("SELECT count(*) FROM notification_edit") == 1
    for line in ("replay --apply", "replay gone --code X --apply", "replay --code X --rate fast"):
        assert operator.run(f"deliveries {line}").code == 2


def test_what_is_described_is_replayed_by_its_channel_and_only_the_dead(operator: Operator, store: redis.Redis) -> None:
    for number in range(30):
        delivery(operator, f"n-{number}", kept=payload(f"n-{number}"))
    delivery(operator, "accepted", "accepted", None, kept=payload("accepted"))
    delivery(operator, "gone")
    hook = payload("hook", channel="WEBHOOK", priority="LOW")
    delivery(operator, "hook", channel="WEBHOOK", job=f"{HOOK}:hook", kept=hook)

    began = time.monotonic()
    said = operator.run("deliveries replay --tenant t-1 --apply --rate 50/s -o json")

    assert time.monotonic() - began > 0.3
    assert (said.code, said.rows) == (4, [{"matched": 32, "replayed": 31, "left": 1}])
    assert "1: nothing is left to send it from" in said.err
    data = [json.loads(store.hget(f"{MAIL}:{job}", "data") or "")["notificationId"] for job in waiting(store)]
    assert sorted(data) == sorted(f"n-{number}" for number in range(30))
    assert store.zcard(f"{HOOK}:prioritized") == 1
    assert operator.json("deliveries replay --state accepted --limit 1 --apply")[0]["replayed"] == 1


def test_without_a_database_there_is_no_record(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    for verb in ("list", "show n-1", "replay n-1"):
        said = operator.run(f"deliveries {verb}")
        assert (said.code, "DATABASE_URL is not set" in said.err) == (1, True)


def test_while_redis_is_away_nothing_is_marked(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    delivery(operator, "n-1", kept=payload("n-1"))
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    assert operator.run("deliveries replay n-1 --apply").code == 6
    assert operator.value("SELECT state FROM notification_delivery") == "dead"


def test_a_replayed_delivery_is_free_once(operator: Operator, database_url: str) -> None:
    first = Sending(DeliveryId("t-1", "n-1", "EMAIL"), f"{MAIL}:n-1", 1, "ada@example.com", payload=payload("n-1"))
    crowd = [replace(first, job=f"{MAIL}:{number}") for number in range(20)]

    async def send(*sendings: Sending, outcome: str = "accepted") -> list[Standing]:
        """Let all of them begin; the first that may ends like that."""
        async with Database(database_url) as one, Database(database_url) as two, Database(database_url) as three:
            ledger = PostgresLedger(one, two, three)
            begun = await asyncio.gather(*(ledger.begin(sending, "smtp") for sending in sendings))
            ours = next((n for n, standing in enumerate(begun) if isinstance(standing, Free)), None)
            if ours is not None:
                await ledger.ended(sendings[ours], Attempt("smtp", time.time(), 0.01, outcome))
            return list(begun)

    for outcome in ("unknown", "accepted"):
        assert asyncio.run(send(first, outcome=outcome)) == [Free()]
        assert operator.json("deliveries replay n-1 --apply")[0]["outcome"] == "replayed"
        # Or its new job, which nobody runs here, would keep it from being replayed again.
        operator.database.execute("UPDATE notification_delivery SET job = %s", [first.job])

    assert Counter(map(type, asyncio.run(send(*crowd)))) == {Free: 1, InProgress: 19}
    assert {type(standing) for standing in asyncio.run(send(*crowd))} == {AlreadySent}
    assert operator.value("SELECT count(*) FROM notification_attempt") == 3


def test_what_is_replayed_arrives_once_more_with_the_same_message_id(
    operator: Operator, store: redis.Redis, database_url: str, redis_url: str, mailbox: Mailbox, tmp_path: Path
) -> None:
    suite = Suite(redis_url, database_url, mailbox, tmp_path)
    try:
        suite.notifications_worker().ready()
        for number in range(3):
            add(store, f"n-{number}", payload(f"n-{number}"))
        accepted = "SELECT count(*) FROM notification_delivery WHERE state = 'accepted'"
        wait_for(lambda: operator.value(accepted) == 3, what="three mails accepted")
        wait_for(lambda: store.zcard(f"{MAIL}:completed") == 3, what="the jobs being done")
        done = operator.json("deliveries replay n-0 n-1 --apply")
        assert set(outcomes(done).values()) == {"replayed"}
        wait_for(lambda: len(mailbox.messages) == 5, what="the replayed mails")
        wait_for(lambda: operator.value(accepted) == 3, what="the record of them")
    finally:
        suite.end()
    assert Counter(suite.notification_ids()) == {"n-0": 2, "n-1": 2, "n-2": 1}
    assert len({mail.message["Message-ID"] for mail in mailbox.messages}) == 3
    assert len(operator.json("deliveries show n-0")["attemptsMade"]) == 2


def add(store: redis.Redis, name: str, data: Any) -> None:
    """Add a job as a producer that knows Redis only would; workers look for themselves within seconds."""
    store.hset(
        f"{MAIL}:{name}",
        mapping={"name": "send", "data": json.dumps(data), "opts": "{}", "timestamp": int(time.time() * 1000)},
    )
    store.lpush(f"{MAIL}:wait", name)
    store.zadd(f"{MAIL}:marker", {"0": 0})
