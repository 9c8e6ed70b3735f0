"""`intelliflow dlq`: each dead letter once, wherever it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import redis

from command_line import Operator, operator
from worker_runtime.bullmq.inspection import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["operator"]

EVENTS, MAIL = "intelliflow:events", "intelliflow:notifications:email"


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def fail(store: redis.Redis, queue: str, job_id: str, reason: str, failed_ms: int = 1_000) -> None:
    store.hset(f"{queue}:{job_id}", mapping={"name": "x", "failedReason": reason})
    store.zadd(f"{queue}:failed", {job_id: failed_ms})


def piles(rows: Any) -> dict[tuple[str, str], int]:
    return {(row["queue"], row["code"]): row["count"] for row in rows}


def test_a_dead_event_counts_once_and_a_job_without_a_row_too(operator: Operator, store: redis.Redis) -> None:
    failed, unpublishable = operator.dead(error="GONE: gone"), operator.dead(error="PAYLOAD_TOO_LARGE: 9 bytes")
    fail(store, EVENTS, failed, "GONE: gone")
    # A producer's own, and a replay's.
    for job_id in ("order-1", str(uuid4())):
        fail(store, EVENTS, job_id, "UNKNOWN_HANDLER: nobody")
    fail(store, MAIL, "m-1", "MAILBOX_FULL: later", 2_000)
    fail(store, MAIL, "m-2", "MAILBOX_FULL: earlier", 1_000)
    rows = operator.json("dlq")
    assert piles(rows) == {
        (EVENTS, "GONE"): 1,
        (EVENTS, "PAYLOAD_TOO_LARGE"): 1,
        (EVENTS, "UNKNOWN_HANDLER"): 2,
        (MAIL, "MAILBOX_FULL"): 2,
    }
    oldest = rows[-1]
    assert (oldest["sample"], oldest["error"]) == ("m-2", "MAILBOX_FULL: earlier")
    assert oldest["oldest"] == "1970-01-01T00:00:01.000Z"
    operator.run(f"outbox discard {unpublishable} {failed} --apply --reason test")
    assert piles(operator.json("dlq")) == {(EVENTS, "UNKNOWN_HANDLER"): 2, (MAIL, "MAILBOX_FULL"): 2}


def test_an_archived_dead_event_is_still_one(operator: Operator, store: redis.Redis) -> None:
    event_id = operator.dead()
    fail(store, EVENTS, event_id, "GONE: it is gone")
    operator.database.execute("DELETE FROM domain_event_outbox")
    assert piles(operator.json("dlq")) == {(EVENTS, "GONE"): 1}


def test_many_are_read_page_by_page(operator: Operator, store: redis.Redis) -> None:
    total = 2 * PAGE + 7
    pipeline = store.pipeline()
    for number in range(total):
        pipeline.hset(f"{MAIL}:job-{number}", "failedReason", f"CODE_{number % 2}: {number}")
        pipeline.zadd(f"{MAIL}:failed", {f"job-{number}": number})
    pipeline.execute()
    rows = operator.json("dlq")
    assert sum(row["count"] for row in rows) == total
    assert [row["code"] for row in rows] == ["CODE_0", "CODE_1"]


def test_without_a_database_the_queues_are_shown_and_without_redis_nothing(
    operator: Operator, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(store, EVENTS, "order-1", "GONE: gone")
    monkeypatch.delenv("DATABASE_URL")
    said = operator.run("dlq -o json")
    assert (said.code, piles(said.rows)) == (0, {(EVENTS, "GONE"): 1})
    assert "DATABASE_URL is not set" in said.err
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    assert operator.run("dlq").code == 6
