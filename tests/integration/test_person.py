"""`intelliflow person`: everything that holds an address is found, and gone once it is erased."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
import redis
from psycopg.types.json import Jsonb

from command_line import Operator, operator
from notifications_worker.suppression import fingerprint
from worker_ops.person.address import Person
from worker_ops.person.places_store import PLACES
from worker_ops.person.store import PersonStore, Search, Stretch
from worker_runtime.postgres import BY_INDEX, Database
from worker_suite import Suite, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedded_stack import Mailbox

__all__ = ["operator"]

EVENTS, MAIL, HOOK = "intelliflow:events", "intelliflow:notifications:email", "intelliflow:notifications:webhook"
OCR, NOTE = "intelliflow:ocr-processing", "intelliflow:state:delivery:t-1:welcome"
# How soon a dead worker's job is another's.
QUICK = {"QUEUE_LOCK_DURATION_MS": "1000", "QUEUE_STALLED_INTERVAL_MS": "300"}
ADA, OTHER = "ada@example.com", "xada@example.com"
FIND, ERASE = f"person find --email {ADA}", f"person erase --email {ADA} --apply --by ann"
LEAD = {"leadId": "l-1", "email": "Ada@Example.com", "firstName": "Ada", "score": 1.50, "company": {"name": "Engines"}}

DELIVERY = """
INSERT INTO notification_delivery
       (tenant_id, notification_id, channel, job, recipient, state, payload, reason, lease_until)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, now() + %s::interval)
"""
ATTEMPT = """
INSERT INTO notification_attempt (tenant_id, notification_id, channel, attempt, provider, started_at, milliseconds,
                                  outcome, said)
VALUES ('t-1', %s, 'EMAIL', 1, 'smtp', now(), 5, 'rejected', %s)
"""
SUPPRESS = """
INSERT INTO notification_suppression (tenant_id, channel, fingerprint, address, reason)
VALUES (%s, 'EMAIL', %s, %s, 'X')
"""


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def job(store: redis.Redis, queue: str, name: str, state: str, data: Any, **more: Any) -> None:
    fields: dict[Any, Any] = {"name": "x", "data": json.dumps(data), **more}
    store.hset(f"{queue}:{name}", mapping=fields)
    if state in ("wait", "active", "paused"):
        store.lpush(f"{queue}:{state}", name)
    else:
        store.zadd(f"{queue}:{state}", {name: 1_000})


def delivery(
    operator: Operator,
    name: str,
    recipient: str = ADA,
    state: str = "accepted",
    *,
    tenant: str = "t-1",
    channel: str = "EMAIL",
    job: str = "gone",
    payload: Any = None,
    reason: str | None = None,
    lease: str = "-1 hour",
) -> None:
    held = None if payload is None else Jsonb(payload)
    operator.database.execute(DELIVERY, [tenant, name, channel, job, recipient, state, held, reason, lease])


def finish(operator: Operator, *event_ids: str) -> None:
    operator.database.execute(
        "UPDATE domain_event_outbox SET status = 'processed', processed_at = now() WHERE id = ANY (%s)",
        [[UUID(event_id) for event_id in event_ids]],
    )


def archive(operator: Operator, *event_ids: str) -> None:
    operator.database.execute(
        "DELETE FROM domain_event_outbox WHERE id = ANY (%s)", [[UUID(event_id) for event_id in event_ids]]
    )


def counts(rows: Any, what: str = "found") -> dict[str, int]:
    return {row["place"]: row[what] for row in rows if row[what]}


def test_everything_of_a_person_is_found_erased_and_then_gone(operator: Operator, store: redis.Redis) -> None:
    delivery(operator, "n-1", "ADA@example.com", payload={"content": {"body": "your code is 1234"}})
    delivery(operator, "n-2", OTHER)
    delivery(operator, "n-3", "https://hooks.example/1", channel="WEBHOOK", payload={"content": {"body": f"<{ADA}>"}})
    delivery(operator, "n-4", "bob@example.com", reason=f"{ADA} is not Bob")
    operator.database.execute(ATTEMPT, ["n-1", f"550 <{ADA}> no such user"])
    for address in (ADA, OTHER):
        operator.database.execute(SUPPRESS, ["t-1", fingerprint(address), address])
    handled, archived, other = operator.commit(payload=LEAD), operator.commit(payload=LEAD), operator.commit()
    dead = operator.dead(error=f"GONE: {ADA} is gone", payload={"text": f"Hello\n{ADA}", "n": 2})
    operator.under_way(dead, dead_reason=f"GONE: {ADA} is gone")
    operator.run(f"outbox retry {dead} --apply --reason", f"for {ADA}")
    operator.database.execute(
        "UPDATE domain_event_outbox SET status = 'dead_letter', processed_at = now() WHERE id = %s", [dead]
    )
    finish(operator, handled, archived, other)
    archive(operator, archived)
    for number, state in enumerate(("wait", "completed", "failed", "delayed", "prioritized", "paused")):
        job(store, MAIL, f"m-{number}", state, {"tenantId": "t-1", "recipient": {"email": ADA}})
    job(store, MAIL, "m-9", "failed", {"tenantId": "t-1"}, failedReason=f"X: {ADA}")
    job(store, HOOK, "w-1", "wait", {"tenantId": "t-1", "content": {"body": json.dumps({"email": ADA})}})
    job(store, MAIL, "other", "wait", {"tenantId": "t-1", "recipient": {"email": OTHER}})
    job(store, EVENTS, handled, "completed", {"tenantId": "t-1", "payload": LEAD})
    store.hset(f"{NOTE}%3A{ADA}:EMAIL", mapping={"state": "sent"})

    expected = {
        "notification_delivery": 3,
        "notification_attempt": 1,
        "notification_suppression": 1,
        "domain_event_outbox": 2,
        "domain_event_outbox_archive": 1,
        "domain_event_edit": 1,
        "domain_event_under_way": 1,
        f"{MAIL} wait": 1,
        f"{MAIL} completed": 1,
        f"{MAIL} failed": 2,
        f"{MAIL} delayed": 1,
        f"{MAIL} prioritized": 1,
        f"{MAIL} paused": 1,
        f"{HOOK} wait": 1,
        f"{EVENTS} completed": 1,
        "notes of the workers": 1,
    }
    found = operator.json(FIND)
    assert counts(found) == expected
    assert {row["place"]: row["ids"] for row in found}["domain_event_outbox_archive"] == [archived]
    dry = operator.run(f"person erase --email {ADA} -o json")
    assert (dry.code, counts(dry.rows)) == (5, expected)
    assert f"would erase {sum(expected.values())} of these" in dry.err
    assert counts(operator.json(FIND)) == expected

    erased = operator.run(f"{ERASE} -o json --reason", "request 17")
    assert erased.code == 0, erased.err
    assert counts(erased.rows, "erased") == expected
    assert ADA not in erased.err.lower()
    assert f'"fingerprints": ["{fingerprint(ADA)}"]' in erased.err
    assert operator.json(FIND) == []
    assert operator.run(f"{ERASE} -o json").rows == []

    left = "SELECT recipient, payload, state FROM notification_delivery ORDER BY notification_id"
    assert operator.database.execute(left).fetchall() == [
        (None, None, "accepted"),
        (OTHER, None, "accepted"),
        ("https://hooks.example/1", {"content": {"body": "<erased>"}}, "accepted"),
        ("bob@example.com", None, "accepted"),
    ]
    assert operator.value("SELECT said FROM notification_attempt") == "550 <erased> no such user"
    for table, event_id in (("domain_event_outbox", handled), ("domain_event_outbox_archive", archived)):
        assert operator.value(f"SELECT payload::text FROM {table} WHERE id = %s", event_id) == (
            '{"email": "erased", "score": 1.5, "leadId": "l-1", "company": {"name": "Engines"}, "firstName": "erased"}'
        )
    assert operator.value("SELECT payload FROM domain_event_outbox WHERE id = %s", dead) == {
        "text": "Hello\nerased",
        "n": 2,
    }
    assert operator.value("SELECT count(*) FROM notification_suppression WHERE address IS NULL") == 1
    assert operator.value("SELECT count(*) FROM notification_suppression") == 2
    assert store.lrange(f"{MAIL}:wait", 0, -1) == ["other"]
    assert operator.value("SELECT reason FROM notification_edit WHERE verb = 'erase' ORDER BY number") == "request 17"


def test_what_is_being_done_is_left_and_reported(operator: Operator, store: redis.Redis) -> None:
    delivery(operator, "n-1", state="sending", lease="1 hour")
    delivery(operator, "n-2", state="waiting", job=f"{MAIL}:m-1")
    delivery(operator, "n-3", state="waiting", job=f"{MAIL}:m-2")
    pending, under_way = operator.commit(payload=LEAD), operator.commit(payload=LEAD)
    finish(operator, under_way)
    operator.under_way(under_way)
    job(store, MAIL, "m-1", "active", {"recipient": {"email": ADA}})
    job(store, MAIL, "m-2", "delayed", {"recipient": {"email": ADA}})
    job(store, EVENTS, under_way, "wait", {"payload": LEAD})
    job(store, OCR, "o-1", "wait", {"owner": ADA})
    store.hset(f"{NOTE}%3A{ADA}:EMAIL", mapping={"state": "sending", "until": 9_999_999_999_999})

    said = operator.run(f"{ERASE} -o json")

    assert said.code == 4
    assert "run it again" in said.err
    left = {
        "notification_delivery": 2,
        "domain_event_outbox": 2,
        f"{MAIL} active": 1,
        f"{EVENTS} wait": 1,
        f"{OCR} wait": 1,
        "notes of the workers": 1,
    }
    assert counts(said.rows, "left") == left
    assert counts(said.rows, "erased") == {"notification_delivery": 1, f"{MAIL} delayed": 1}
    assert counts(operator.json(FIND), "atWork")["domain_event_outbox"] == 2
    states = "SELECT notification_id, state, code FROM notification_delivery WHERE recipient IS NULL"
    assert operator.database.execute(states).fetchall() == [("n-3", "dropped", "ERASED")]
    assert operator.value("SELECT payload FROM domain_event_outbox WHERE id = %s", pending) == LEAD

    finish(operator, pending)
    operator.database.execute("DELETE FROM domain_event_under_way")
    operator.database.execute("UPDATE notification_delivery SET lease_until = now()")
    store.hset(f"{NOTE}%3A{ADA}:EMAIL", "until", 1)
    store.delete(
        f"{MAIL}:active", f"{MAIL}:m-1", f"{EVENTS}:wait", f"{EVENTS}:{under_way}", f"{OCR}:wait", f"{OCR}:o-1"
    )
    assert operator.run(ERASE).code == 0
    assert operator.json(FIND) == []


def test_a_job_that_no_list_knows_goes_and_a_schedule_stays(operator: Operator, store: redis.Redis) -> None:
    data = json.dumps({"recipient": {"email": ADA}})
    for key in (f"{MAIL}:lost", f"{EVENTS}:lost", f"{MAIL}:repeat:daily"):
        store.hset(key, mapping={"name": "x", "data": data})
    said = operator.run(f"{ERASE} -o json --reason", f"for {ADA}")
    assert (said.code, counts(said.rows, "left")) == (4, {f"{MAIL} schedule": 1})
    assert "remove the schedule" in said.err
    assert ADA not in said.err
    assert operator.value("SELECT reason FROM notification_edit") == "for erased"
    assert not store.exists(f"{MAIL}:lost", f"{EVENTS}:lost")


def test_one_tenants_data_is_not_anothers(operator: Operator, store: redis.Redis) -> None:
    for tenant in ("t-1", "t-2"):
        delivery(operator, "n-1", tenant=tenant)
        job(store, MAIL, tenant, "completed", {"tenantId": tenant, "recipient": {"email": ADA}})
    event_id = operator.commit(payload=LEAD)
    finish(operator, event_id)
    assert operator.run(f"{ERASE} --tenant t-2").code == 0
    found = counts(operator.json(FIND))
    assert found == {"notification_delivery": 1, "domain_event_outbox": 1, f"{MAIL} completed": 1}
    assert store.exists(f"{MAIL}:t-1")
    assert operator.json(f"{FIND} --tenant t-2") == []


def test_a_phone_number_is_found_however_it_is_written(operator: Operator, store: redis.Redis) -> None:
    written = ("+43 660 123-45-67", "0043660 1234567", "436601234567", "call (+43) 660/1234567!")
    for number, phone in enumerate(written):
        job(store, MAIL, f"m-{number}", "completed", {"text": phone})
    for number, phone in enumerate(("+4366012345678", "143660123456", "+43660123456")):
        job(store, MAIL, f"other-{number}", "completed", {"text": phone})
    event_id = operator.commit(payload={"phone": 436601234567, "email": ADA})
    finish(operator, event_id)
    delivery(operator, "n-1", "+436601234567", channel="SMS")
    line = "person erase --apply -o json --phone"
    erased = operator.run(line, "+43 660 1234567")
    assert (erased.code, counts(erased.rows, "erased")) == (
        0,
        {
            f"{MAIL} completed": 4,
            "domain_event_outbox": 1,
            "notification_delivery": 1,
        },
    )
    assert operator.value("SELECT payload FROM domain_event_outbox") == {"phone": "erased", "email": "erased"}
    assert store.zcard(f"{MAIL}:completed") == 3


def test_all_spellings_of_an_international_address_are_one(operator: Operator, store: redis.Redis) -> None:
    job(store, MAIL, "m-1", "completed", {"to": "\u00fcta@b\u00fccher.example"})
    job(store, MAIL, "m-2", "completed", {"to": "\u00dcTA@xn--bcher-kva.example"})
    assert r"\u00fc" in str(store.hget(f"{MAIL}:m-1", "data"))
    found = operator.run("person find -o json --email", "u\u0308ta@b\u00fccher.example")
    assert counts(found.rows) == {f"{MAIL} completed": 2}


def test_long_tables_are_walked_to_their_end(operator: Operator) -> None:
    text = "repeat('x', 500) || CASE WHEN n % 10 = 0 THEN ' ada@example.com' ELSE '' END"
    operator.database.execute(
        "INSERT INTO domain_event_outbox_archive (id, event_type, aggregate_type, aggregate_id, tenant_id, payload)"
        f" SELECT gen_random_uuid(), 'x', 'x', 'x', 't-1', jsonb_build_object('text', {text})"
        " FROM generate_series(1, 20000) AS n"
    )
    assert operator.run(ERASE).code == 0
    left = "SELECT count(*) FROM domain_event_outbox_archive WHERE payload->>'text' LIKE "
    assert operator.value(f"{left} '%% erased'") == 2000
    assert operator.value(f"{left} '%%ada%%'") == 0


def test_what_takes_too_long_at_once_is_done_in_smaller_steps(operator: Operator, database_url: str) -> None:
    # Pages that are read at once, and then pages whose rows have much beside them.
    for rows, letters, email in ((20_000, 1, ADA), (800, 300_000, "bob@example.com")):
        payload = f"jsonb_build_object('text', repeat('x', {letters}), 'email', '{email}')"
        operator.database.execute(
            "INSERT INTO domain_event_outbox_archive (id, event_type, aggregate_type, aggregate_id, tenant_id, payload)"
            f" SELECT gen_random_uuid(), 'x', 'x', 'x', 't-1', {payload} FROM generate_series(1, {rows})"
        )
    place = next(place for place in PLACES if place.table == "domain_event_outbox_archive")

    async def walk() -> list[Stretch]:
        async with Database(database_url, settings=BY_INDEX, command_seconds=1.0) as database:
            return [stretch async for stretch in PersonStore(database).find(place, Search(Person((ADA,))))]

    stretches = asyncio.run(walk())
    assert sum(len(stretch.rows) for stretch in stretches) == 20_000
    assert stretches[-1].done == 1


def test_ctrl_c_ends_it_between_two_steps(operator: Operator, database_url: str, redis_url: str) -> None:
    rows = "SELECT gen_random_uuid(), 'x', 'x', 'x', 't-1', jsonb_build_object('text', repeat('x ada', 20000))"
    operator.database.execute(
        "INSERT INTO domain_event_outbox_archive (id, event_type, aggregate_type, aggregate_id, tenant_id, payload)"
        f" {rows} FROM generate_series(1, 4000) AS n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "worker_ops", *FIND.split()],
        env=os.environ | {"DATABASE_URL": database_url, "REDIS_URL": redis_url},
        stderr=subprocess.PIPE,
        text=True,
    )
    heard = process.stderr
    assert heard
    try:
        wait_for(lambda: "archive: " in heard.readline(), within=60, what="the first progress")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, "begins again" in err) == (4, True), err


def test_a_mail_that_is_being_sent_is_finished_and_then_erased(
    operator: Operator, store: redis.Redis, redis_url: str, database_url: str, mailbox: Mailbox, tmp_path: Path
) -> None:
    suite = Suite(redis_url, database_url, mailbox, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        try:
            worker = suite.notifications_worker(SMTP_PORT=str(silent.getsockname()[1]), SMTP_TLS="off", **QUICK)
            worker.ready()
            mail = {"notificationId": "n-1", "tenantId": "t-1", "channel": "EMAIL", "recipient": {"email": ADA}}
            fields: dict[Any, Any] = {"name": "send", "opts": "{}", "timestamp": int(time.time() * 1000)}
            store.hset(f"{MAIL}:m-1", mapping=fields | {"data": json.dumps({**mail, "content": {"body": "Hello"}})})
            store.lpush(f"{MAIL}:wait", "m-1")
            store.zadd(f"{MAIL}:marker", {"0": 0})
            sending = "SELECT count(*) FROM notification_delivery WHERE state = 'sending'"
            wait_for(lambda: operator.value(sending) == 1, what="the worker at the mail server")
            said = operator.run(f"{ERASE} -o json")
            assert (said.code, counts(said.rows, "left")) == (4, {f"{MAIL} active": 1, "notification_delivery": 1})
        finally:
            suite.end()
    # Another worker takes the dead one's job over, and gets it to the mail server.
    suite.notifications_worker(**QUICK).ready()
    try:
        wait_for(lambda: store.zcard(f"{MAIL}:completed") == 1, within=60, what="the job being done")
        assert operator.run(ERASE).code == 0
    finally:
        suite.end()
    assert operator.json(FIND) == []
    assert len(mailbox.messages) == 1
    assert operator.value("SELECT state FROM notification_delivery") == "accepted"


def test_without_a_database_redis_is_searched(
    operator: Operator, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    job(store, MAIL, "m-1", "completed", {"to": ADA})
    monkeypatch.delenv("DATABASE_URL")
    said = operator.run(f"{ERASE} -o json")
    assert (said.code, counts(said.rows, "erased")) == (0, {f"{MAIL} completed": 1})
    assert "only Redis" in said.err
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    assert operator.run(FIND).code == 6


def test_it_says_what_it_needs(operator: Operator) -> None:
    for line in ("find", "find --email ada", "find --phone 0660", "erase --email @", "erase --tenant t-1 --apply"):
        assert operator.run(f"person {line}").code == 2
    assert operator.json(f"person find --email {uuid4()}@example.com") == []
