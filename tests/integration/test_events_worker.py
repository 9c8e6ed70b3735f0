"""The events-worker as the process it is, between a real PostgreSQL and a real Redis."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import UUID, uuid4, uuid5

import psycopg
import pytest
import redis

from embedded_stack.postgres import create_database, drop_database
from worker_ops import migrations
from worker_ops.migrations import migrate, shipped_migrations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from embedded_stack import PostgresServer

INSERT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
VALUES (%s, %s, 'lead', 'l-1', 't-1', %s, '{"correlationId": "c-1"}')
"""
LEAD = {"leadId": "l-1", "email": "ada@example.com", "tenantId": "t-1", "firstName": "Ada"}
MAIL = "intelliflow:notifications:email"


class Process:
    """A running events-worker and what it has said so far."""

    def __init__(self, folder: Path, environment: dict[str, str], *arguments: str) -> None:
        self._log = folder / f"{uuid4().hex}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "events_worker", *arguments],
                env={"HEALTH_PORT": "0", "PATH": os.defpath} | environment,
                stdout=log,
                stderr=log,
            )

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    def said(self, text: str) -> bool:
        return text in self._log.read_text()

    def get(self, path: str) -> int:
        port = next(line["port"] for line in self.lines() if line["event"] == "health_server_listening")
        try:
            with urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code

    def ready(self) -> bool:
        return self.said("health_server_listening") and self.get("/health/ready") == 200

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def end(self, within: float = 30) -> int:
        return self.process.wait(within)


@contextmanager
def worker(folder: Path, environment: dict[str, str], *arguments: str) -> Iterator[Process]:
    started = Process(folder, environment, *arguments)
    try:
        yield started
    except BaseException:
        sys.stderr.write(started._log.read_text())
        raise
    finally:
        started.process.kill()
        started.process.wait()


@pytest.fixture
def environment(database_url: str, redis_url: str) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "REDIS_URL": redis_url}


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def commit(database_url: str, *payloads: dict[str, Any], event_type: str = "lead.created") -> list[str]:
    ids = [str(uuid4()) for _ in payloads]
    with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            INSERT, [(event_id, event_type, json.dumps(body)) for event_id, body in zip(ids, payloads, strict=True)]
        )
    return ids


def until(condition: Callable[[], object], within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)  # Another process is the one to act; asking again is all there is.


def completed(store: redis.Redis, least: int) -> bool:
    return int(store.zcard("intelliflow:events:completed")) >= least


def welcome_of(event_id: str) -> str:
    return str(uuid5(UUID(event_id), "lead-welcome"))


def the_only_job(store: redis.Redis, queue: str) -> dict[str, Any]:
    (job_id,) = map(str, store.lrange(f"{queue}:wait", 0, -1))
    data: dict[str, Any] = json.loads(store.hget(f"{queue}:{job_id}", "data") or "")
    return data


def test_a_committed_lead_becomes_a_welcome_mail_to_send(
    tmp_path: Path, environment: dict[str, str], database_url: str, store: redis.Redis
) -> None:
    with worker(tmp_path, environment) as process:
        (event_id,) = commit(database_url, LEAD)
        until(lambda: store.zscore("intelliflow:events:completed", event_id))
        assert store.lrange(f"{MAIL}:wait", 0, -1) == [welcome_of(event_id)]
        notification = json.loads(store.hget(f"{MAIL}:{welcome_of(event_id)}", "data") or "")
        assert notification["notificationId"] == welcome_of(event_id)
        assert notification["recipient"]["email"] == "ada@example.com"
        assert notification["content"]["templateData"]["firstName"] == "Ada"
        assert notification["metadata"] | {"eventId": event_id, "correlationId": "c-1"} == notification["metadata"]
        result = json.loads(store.hget(f"intelliflow:events:{event_id}", "returnvalue") or "")
        assert result == {"routing": [welcome_of(event_id)]}
        assert process.stop() == 143


def test_a_broken_contract_is_a_dead_letter_that_names_the_field(
    tmp_path: Path, environment: dict[str, str], database_url: str, store: redis.Redis
) -> None:
    with worker(tmp_path, environment) as process:
        (event_id,) = commit(database_url, {"leadId": "l-1", "tenantId": "t-1"})
        until(lambda: store.zscore("intelliflow:events:failed", event_id))
        assert store.hget(f"intelliflow:events:{event_id}", "failedReason") == "INVALID_PAYLOAD: email is missing"
        assert store.hget(f"intelliflow:events:{event_id}", "atm") == "1"
        (good,) = commit(database_url, LEAD)
        until(lambda: store.zscore("intelliflow:events:completed", good))
        assert process.stop() == 143


def test_own_rules_replace_the_shipped_ones(
    tmp_path: Path, environment: dict[str, str], database_url: str, store: redis.Redis
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules:\n"
        "  - {name: boss, event: 'deal.*', channel: EMAIL, priority: LOW, recipient: {email: payload.boss},"
        " subject: 'Won {{ payload.amount }}', body: hurray}\n"
    )
    with worker(tmp_path, environment | {"EVENT_RULES_FILE": str(rules)}) as process:
        fine, wrong = commit(database_url, {"boss": "b@x.org", "amount": 5}, {"boss": "b@x.org"}, event_type="deal.won")
        (lead,) = commit(database_url, LEAD)
        until(lambda: store.zcard("intelliflow:events:completed") == 2)
        until(lambda: store.zscore("intelliflow:events:failed", wrong))
        assert store.hget(f"intelliflow:events:{wrong}", "failedReason") == (
            "RULE_FAILED: handler routing: rule boss: subject: `Won {{ payload.amount }}`: there is no field amount"
        )
        assert store.zrange(f"{MAIL}:prioritized", 0, -1) == [str(uuid5(UUID(fine), "boss"))]
        assert store.llen(f"{MAIL}:wait") == 0
        assert not store.exists(f"{MAIL}:{welcome_of(lead)}")
        assert process.stop() == 143


def test_a_rule_sends_the_event_to_endpoints_and_its_document_to_be_read(
    tmp_path: Path, environment: dict[str, str], database_url: str, store: redis.Redis
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules:\n"
        "  - {name: all, event: 'deal.*', webhook: , ingest: {documentId: payload.id, sourceUrl: payload.url}}\n"
    )
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO tenant_webhook_endpoint (tenant_id, url) VALUES ('t-1', 'https://a.example')")
    switched_on = {"EVENT_RULES_FILE": str(rules), "ENABLE_WEBHOOK": "true"}
    with worker(tmp_path, environment | switched_on, "--drain") as process:
        (won,) = commit(database_url, {"id": "d-1", "url": "s3://b/d-1.pdf"}, event_type="deal.won")
        assert process.end() == 0
    assert the_only_job(store, "intelliflow:text-extraction") == {
        "documentId": "d-1",
        "sourceUrl": "s3://b/d-1.pdf",
        "tenantId": "t-1",
    }
    notification = the_only_job(store, "intelliflow:notifications:webhook")
    assert notification["recipient"]["webhookUrl"] == "https://a.example"
    assert json.loads(notification["content"]["body"])["id"] == won


def test_drain_works_everything_off_and_ends(
    tmp_path: Path, environment: dict[str, str], database_url: str, store: redis.Redis
) -> None:
    ids = commit(database_url, *[LEAD] * 250)
    with worker(tmp_path, environment, "--drain") as process:
        assert process.end() == 0
    assert sorted(store.lrange(f"{MAIL}:wait", 0, -1)) == sorted(map(welcome_of, ids))


def test_an_old_schema_is_refused_with_the_remedy(
    tmp_path: Path, environment: dict[str, str], migrated_template: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server_url, _ = migrated_template
    name = f"old_{uuid4().hex}"
    create_database(server_url, name)
    database_url = server_url.rsplit("/", 1)[0] + f"/{name}"
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "shipped_migrations", lambda: shipped_migrations()[:1])
        migrate(database_url, lambda _: None)
    with worker(tmp_path, environment | {"DATABASE_URL": database_url}) as process:
        assert process.end() == 1
        assert process.said("run `intelliflow migrate`, then start")
    drop_database(server_url, name)


def test_a_database_that_never_comes_ends_the_start(tmp_path: Path, environment: dict[str, str]) -> None:
    nowhere = environment | {"DATABASE_URL": "postgresql://u:geheim@127.0.0.1:1/d", "START_TIMEOUT_MS": "1500"}
    with worker(tmp_path, nowhere) as process:
        until(lambda: process.said("waiting_for_dependency"))
        assert process.get("/health/ready") == 503
        assert process.get("/health/live") == 200
        assert process.end() == 1
        assert process.said("postgres")
        assert not process.said("geheim")


def test_every_bad_setting_is_told_at_once(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - {name: a, event: lead.created, chanel: EMAIL}\n")
    with worker(
        tmp_path, {"OUTBOX_BATCH_SIZE": "101", "OUTBOX_POLL_INTERVAL_MS": "0", "EVENT_RULES_FILE": str(rules)}, "check"
    ) as process:
        assert process.end() == 1
        for name in ("DATABASE_URL", "OUTBOX_BATCH_SIZE", "OUTBOX_POLL_INTERVAL_MS", "EVENT_RULES_FILE"):
            assert process.said(name)
        assert process.said(f"{rules}:2: rules.0.chanel: unknown key")


def test_postgres_may_go_while_the_worker_runs(
    tmp_path: Path, own_postgres: PostgresServer, redis_url: str, store: redis.Redis
) -> None:
    with worker(tmp_path, {"DATABASE_URL": own_postgres.url, "REDIS_URL": redis_url}) as process:
        until(process.ready)
        own_postgres.kill()
        until(lambda: process.get("/health/ready") == 503)
        assert process.get("/health/live") == 200
        own_postgres.start()
        (event_id,) = commit(own_postgres.url, LEAD)
        until(lambda: store.zscore("intelliflow:events:completed", event_id), within=2)
        until(process.ready)
        assert process.stop() == 143


def test_killed_again_and_again_it_loses_and_doubles_nothing(
    tmp_path: Path, environment: dict[str, str], database_url: str, store: redis.Redis
) -> None:
    quick = environment | {"QUEUE_LOCK_DURATION_MS": "1000", "QUEUE_STALLED_INTERVAL_MS": "200"}
    ids: list[str] = []
    for _ in range(4):
        with worker(tmp_path, quick):
            ids += commit(database_url, *[LEAD] * 250)
            a_few_more = int(store.zcard("intelliflow:events:completed")) + 5
            until(functools.partial(completed, store, a_few_more))
            # Leaving the block is SIGKILL, somewhere in the middle of the work.
    with worker(tmp_path, quick) as first, worker(tmp_path, quick) as second:
        until(lambda: store.zcard("intelliflow:events:completed") == len(ids), within=60)
        assert {first.stop(), second.stop()} == {143}
    assert sorted(store.lrange(f"{MAIL}:wait", 0, -1)) == sorted(map(welcome_of, ids))
    assert store.zcard("intelliflow:events:failed") == 0
