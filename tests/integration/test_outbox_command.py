"""`intelliflow outbox`: what it shows, what it changes, and when it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import redis

from command_line import Operator, operator
from worker_ops.outbox.backlog import advice, forecast
from worker_ops.outbox.store import Flow
from worker_runtime.bullmq.producer import QueueCounts
from worker_runtime.postgres.database import NEEDED_MIGRATION

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["operator"]

LEAD = {"leadId": "l-1", "email": "ada@example.com", "tenantId": "t-1"}


def test_dead_letters_are_listed_and_grouped(operator: Operator) -> None:
    lead = operator.dead(error="HANDLER_FAILED: handler x: KeyError", aggregate="a")
    operator.under_way(lead, dead_reason="HANDLER_FAILED: handler x: KeyError")
    operator.dead("opportunity.won", "INVALID_PAYLOAD: amount is missing")
    lost = operator.dead("opportunity.lost", "INVALID_PAYLOAD: amount is missing")
    first, *_ = rows = operator.json("outbox dead")
    assert len(rows) == 3
    assert (first["eventId"], first["type"], first["aggregate"], first["blocks"], first["retries"]) == (
        lead,
        "lead.created",
        "lead:a",
        True,
        0,
    )
    assert [row["eventId"] for row in operator.json("outbox dead --type opportunity.lost")] == [lost]
    assert [row["eventId"] for row in operator.json("outbox dead --aggregate lead:a")] == [lead]
    assert operator.json("outbox dead --older-than 1h") == []
    assert len(operator.json("outbox dead --newer-than 1h")) == 3
    groups = operator.json("outbox dead --group --code INVALID_PAYLOAD")
    assert [(group["code"], group["type"], group["count"]) for group in groups] == [
        ("INVALID_PAYLOAD", "opportunity.lost", 1),
        ("INVALID_PAYLOAD", "opportunity.won", 1),
    ]
    limited = operator.run("outbox dead --limit 1 -o ndjson")
    assert len(limited.out.splitlines()) == 1
    assert "and 2 more" in limited.err


def test_show_tells_everything_of_an_event_and_masks_people(operator: Operator, redis_url: str) -> None:
    event_id = operator.dead(aggregate="a", payload={"email": "ada@example.com", "apiKey": "k", "n": 1})
    operator.under_way(event_id, dead_reason="GONE: it is gone", finished="{routing}")
    waiting = operator.commit(aggregate="a")
    operator.run(f"outbox retry {event_id} --apply --by ann", "--reason", "it is back")
    with redis.Redis.from_url(redis_url) as client:
        client.hset(f"intelliflow:events:{event_id}", mapping={"name": "lead.created", "atm": 3, "timestamp": 1000})
        client.zadd("intelliflow:events:failed", {event_id: 2000})
    shown = operator.json(f"outbox show {event_id}")
    assert shown["payload"] == {"email": "***@example.com", "apiKey": "***", "n": 1}
    assert (shown["standing"], shown["handlersDone"], shown["error"]) == ("pending", ["routing"], "GONE: it is gone")
    assert (shown["job"]["state"], shown["job"]["attempts"]) == ("failed", 3)
    assert [(edit["verb"], edit["by"], edit["reason"]) for edit in shown["history"]] == [("retry", "ann", "it is back")]
    revealed = operator.json(f"outbox show --reveal {event_id}")
    assert revealed["payload"]["email"] == "ada@example.com"
    assert operator.json(f"outbox show {waiting}")["waitsFor"] == {"eventId": event_id, "standing": "dead letter"}
    table = operator.run(f"outbox show {event_id}")
    assert "***@example.com" in table.out
    assert operator.run(f"outbox show {uuid4()}").code == 3
    assert operator.run("outbox show 17").code == 2


def test_show_works_while_redis_is_away(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    event_id = operator.commit()
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    said = operator.run(f"outbox show {event_id} -o json")
    assert (said.code, said.rows["job"]) == (0, None)
    assert "the job is not shown" in said.err
    assert operator.run("outbox lag").code == 6


def test_nothing_is_retried_until_it_is_applied(operator: Operator) -> None:
    one, other = operator.dead(), operator.dead()
    for line in (f"outbox retry {one}", "outbox retry --type lead.*", "outbox drain --type lead.created --rate 10/s"):
        said = operator.run(f"{line} -o json")
        assert said.code == 5
        assert said.rows[0]["code"] == "GONE"
        assert "do it with --apply" in said.err
    assert operator.value("SELECT count(*) FROM domain_event_outbox WHERE status = 'pending'") == 0
    assert operator.json(f"outbox retry {one} --apply") == [{"eventId": one, "outcome": "retried"}]
    assert operator.json("outbox retry --code GONE --apply") == [{"matched": 1, "retried": 1, "left": 0}]
    assert operator.value("SELECT count(*) FROM domain_event_outbox WHERE status = 'pending'") == 2
    for line in ("outbox retry --code GONE", "outbox retry --code GONE --apply"):
        assert operator.json(line) == [{"matched": 0, "retried": 0, "left": 0}]
    assert {one, other} == {
        str(row[0]) for row in operator.database.execute("SELECT event_id FROM domain_event_edit").fetchall()
    }


def test_what_cannot_be_retried_has_its_code(operator: Operator) -> None:
    dead, fine, nobody = operator.dead(), operator.commit(), str(uuid4())
    assert operator.run(f"outbox retry {nobody} --apply").code == 3
    partly = operator.run(f"outbox retry {dead} {fine} {nobody} --apply -o json")
    assert partly.code == 4
    assert partly.rows == [
        {"eventId": dead, "outcome": "retried"},
        {"eventId": fine, "outcome": "its status is pending"},
        {"eventId": nobody, "outcome": "not found"},
    ]
    assert operator.run("outbox retry --apply").code == 2
    assert operator.run(f"outbox retry {dead} --code GONE --apply").code == 2
    assert operator.run("outbox drain --type lead.created --rate fast --apply").code == 2
    assert operator.run("outbox drain --type lead.created --apply").code == 2


def test_an_event_is_retried_with_a_mended_payload(operator: Operator, tmp_path: Path) -> None:
    event_id, file = operator.dead(payload={"leadId": "l-1"}), tmp_path / "payload.json"
    file.write_text('{"leadId": "l-1"}')
    refused = operator.run(f"outbox retry {event_id} --payload-file {file} --apply")
    assert (refused.code, "email is missing" in refused.err) == (5, True)
    assert operator.run(f"outbox retry {event_id} --payload-file {tmp_path} --apply").code == 1
    assert operator.run(f"outbox retry --type lead.created --payload-file {file} --apply").code == 5
    file.write_text(json.dumps(LEAD))
    assert operator.run(f"outbox retry {event_id} --payload-file {file}").code == 5
    assert operator.value("SELECT payload->>'email' FROM domain_event_outbox") is None
    assert operator.run(f"outbox retry {event_id} --payload-file {file} --apply").code == 0
    assert operator.value("SELECT payload->>'email' FROM domain_event_outbox") == "ada@example.com"
    assert operator.value("SELECT payload_before FROM domain_event_edit") == {"leadId": "l-1"}


def test_discarding_needs_a_reason(operator: Operator) -> None:
    event_id = operator.dead(aggregate="a")
    operator.under_way(event_id, dead_reason="GONE: it is gone")
    assert operator.run(f"outbox discard {event_id} --apply").code == 2
    assert operator.run(f"outbox discard {event_id}", "--reason", "a test").code == 5
    assert operator.value("SELECT blocks FROM domain_event_under_way") is True
    assert operator.json(f"outbox discard {event_id} --apply", "--reason", "a test") == [
        {"eventId": event_id, "outcome": "discarded"}
    ]
    assert operator.value("SELECT blocks FROM domain_event_under_way") is False
    other = operator.dead()
    assert operator.json("outbox discard --code GONE --apply", "--reason", "a test") == [
        {"matched": 1, "discarded": 1, "left": 0}
    ]
    assert [row["eventId"] for row in operator.json("outbox dead --code DISCARDED")] == [event_id, other]


def test_lag_and_backlog_measure(operator: Operator) -> None:
    operator.commit("lead.created", aggregate="a")
    blocking = operator.dead(aggregate="b")
    operator.under_way(blocking, dead_reason="GONE: it is gone")
    operator.commit("lead.updated", aggregate="b")
    operator.commit("lead.updated", aggregate="b")
    operator.database.execute("UPDATE domain_event_outbox SET created_at = now() - interval '1 minute'")
    (lag,) = operator.json("outbox lag")
    assert (lag["pending"], lag["underWay"], lag["blockedAggregates"], lag["deadLetters"]) == (3, 0, 1, 1)
    assert 60 <= lag["oldestSeconds"] < 120
    by_type = operator.json("outbox lag --by-type")
    assert [(row["type"], row["pending"]) for row in by_type] == [("lead.updated", 2), ("lead.created", 1)]
    (backlog,) = operator.json("outbox backlog --seconds 1")
    assert (backlog["pending"], backlog["behindDeadLetters"], backlog["goingPerSecond"]) == (3, 2, 0)
    assert backlog["emptyInSeconds"] is None


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (Flow(1_000, 5_000, 10.0), Flow(500, 5_100, 20.0), (10.0, 60.0, 10)),
        (Flow(1_000, 5_000, 10.0), Flow(1_100, 5_100, 20.0), (10.0, 0.0, None)),
        (Flow(0, 5_000, 10.0), Flow(0, 5_000, 20.0), (0.0, 0.0, 0)),
    ],
)
def test_a_forecast_from_two_looks(before: Flow, after: Flow, expected: tuple[float, float, int | None]) -> None:
    row = forecast(before, after)
    assert (row["comingPerSecond"], row["goingPerSecond"], row["emptyInSeconds"]) == expected


@pytest.mark.parametrize(
    ("changes", "counts", "ownerless", "word"),
    [
        ({}, (0, 0, False), 3, "no owner"),
        ({}, (5_000, 0, True), 0, "paused"),
        ({}, (5_000, 10, False), 0, "bottleneck"),
        ({"behindDeadLetters": 7}, (0, 0, False), 0, "7 wait for a person"),
        ({"emptyInSeconds": None, "goingPerSecond": 0.0}, (0, 0, False), 0, "nothing goes"),
    ],
)
def test_what_holds_a_backlog_is_said(
    changes: dict[str, int], counts: tuple[int, int, bool], ownerless: int, word: str
) -> None:
    waiting, active, paused = counts
    row = {"pending": 1_000, "emptyInSeconds": 5, "goingPerSecond": 9.0, "behindDeadLetters": 0} | changes
    row |= {"waitingJobs": waiting, "activeJobs": active}
    seen = QueueCounts(waiting, active, 0, 0, 0, 0, paused=paused, oldest_waiting_ms=0)
    (sentence,) = advice(row, seen, ownerless)
    assert word in sentence
    assert list(advice(row | {"pending": 3}, seen, ownerless)) == []


def test_partitions_name_their_owners(operator: Operator) -> None:
    said = operator.run("outbox partitions -o json")
    assert (said.code, said.rows) == (0, [])
    assert "no events-worker has started" in said.err
    operator.database.execute(
        "INSERT INTO domain_event_partition VALUES (0, 'here:1', 3, now() + interval '10 seconds'),"
        " (1, 'gone:2', 4, now() - interval '1 minute'), (2, NULL, 0, '-infinity')"
    )
    said = operator.run("outbox partitions -o json")
    owned, expired, never = said.rows
    assert (owned["owner"], owned["token"], 0 < owned["leaseSeconds"] <= 10) == ("here:1", 3, True)
    assert (expired["owner"], expired["leaseSeconds"], never["owner"]) == (None, None, None)
    assert "2 of 3 partitions have no owner" in said.err


def test_without_servers_a_schema_or_rights_it_says_so(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@127.0.0.1:1/d")
    away = operator.run("outbox dead")
    assert (away.code, "secret" in away.err) == (6, False)
    monkeypatch.delenv("DATABASE_URL")
    assert operator.run("outbox dead").code == 1
    monkeypatch.setenv("DATABASE_URL", database_url)
    operator.database.execute("DELETE FROM _yoyo_migration WHERE migration_id = %s", [NEEDED_MIGRATION])
    old = operator.run("outbox dead")
    assert (old.code, "intelliflow migrate" in old.err) == (1, True)


def test_ctrl_c_ends_a_drain_between_two_chunks(operator: Operator, database_url: str, redis_url: str) -> None:
    for _ in range(60):
        operator.dead()
    process = subprocess.Popen(
        [sys.executable, "-m", "worker_ops", "outbox", "drain", "--type", "lead.created", "--rate", "20/s", "--apply"],
        env=os.environ | {"DATABASE_URL": database_url, "REDIS_URL": redis_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 30
        while operator.value("SELECT count(*) FROM domain_event_edit") == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)  # Another process is the one to act; asking again is all there is.
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 4, err
    assert "goes on where it stopped" in err
    done = operator.value("SELECT count(*) FROM domain_event_outbox WHERE status = 'pending'")
    assert 0 < done < 60
    assert out.split()[-2] == str(done)
