"""`POST /admin/dlq/retry` and `/drain` of a running events-worker: the command line's room by its other door."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from asking import KEY, TOKEN, ask
from command_line import Operator, operator
from worker_suite import Process, Suite, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedded_stack import Mailbox

__all__ = ["operator"]

BAD = {"leadId": "l-1", "tenantId": "t-1"}
MENDED = BAD | {"email": "ada@example.com"}


@dataclass(frozen=True)
class Doors:
    operator: Operator
    process: Process

    def ask(self, path: str, method: str = "POST", **order: Any) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.process.port}/admin/dlq/{path}"
        return ask(url, KEY, json.dumps(order).encode() if method == "POST" else None, method)[:2]

    def dead(self, event_type: str = "lead.created", **columns: Any) -> str:
        """Commit what must die, and wait until it has."""
        event_id = self.operator.commit(event_type, payload=BAD, **columns)
        wait_for(lambda: self.status(event_id) == "dead_letter", what="the event's death")
        return event_id

    def status(self, event_id: str) -> Any:
        return self.operator.value("SELECT status FROM domain_event_outbox WHERE id = %s", event_id)

    def retries(self, event_id: str) -> Any:
        return self.operator.value("SELECT retry_count FROM domain_event_outbox WHERE id = %s", event_id)

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.process.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]


@pytest.fixture
def doors(operator: Operator, redis_url: str, database_url: str, mailbox: Mailbox, tmp_path: Path) -> Iterator[Doors]:
    suite = Suite(redis_url, database_url, mailbox, tmp_path)
    try:
        yield Doors(operator, suite.events_worker(OPS_TOKEN=TOKEN).ready())
    finally:
        suite.end()


def test_an_event_is_mended_and_retried(doors: Doors) -> None:
    event_id, other = doors.dead(), doors.dead()
    status, dry = doors.ask("retry", eventIds=[event_id])
    assert (status, dry["applied"], dry["matched"], dry["groups"][0]["code"]) == (200, False, 1, "INVALID_PAYLOAD")
    assert doors.status(event_id) == "dead_letter"
    order: dict[str, Any] = {"eventIds": [event_id], "apply": True, "by": "ann", "reason": "mended"}
    assert doors.ask("retry", **order, payload=BAD)[0] == 422
    status, done = doors.ask("retry", **order, payload=MENDED)
    assert (status, done["retried"], done["outcomes"]) == (200, 1, {event_id: "retried"})
    wait_for(lambda: doors.status(event_id) == "processed", what="the event being handled")
    edit = doors.operator.json(f"outbox show {event_id}")["history"]
    assert [(one["by"], one["reason"], one["payloadBefore"]) for one in edit] == [("ann", "mended", BAD)]
    assert doors.status(other) == "dead_letter"
    (line,) = doors.logged("admin_request")
    assert (line["by"], line["reason"], line["remote"], line["named"], line["changed"]) == (
        "ann",
        "mended",
        "127.0.0.1",
        1,
        1,
    )
    assert TOKEN not in doors.process.log.read_text()


def test_a_kind_is_retried_and_what_is_not_there_is_said(doors: Doors) -> None:
    event_id, nobody = doors.dead(), str(uuid4())
    assert doors.ask("retry", eventIds=[nobody], apply=True)[1]["outcomes"] == {nobody: "not found"}
    status, done = doors.ask("retry", eventType="lead.*", code="INVALID_PAYLOAD", apply=True)
    assert (status, done["retried"]) == (200, 1)
    wait_for(lambda: doors.retries(event_id) == 1, what="the retry")
    assert doors.operator.json(f"outbox show {event_id}")["history"][0]["by"] == "http 127.0.0.1"


def test_an_order_that_makes_no_sense_is_refused(doors: Doors) -> None:
    orders: list[tuple[str, dict[str, Any], str]] = [
        ("retry", {}, "name eventIds, eventType or code"),
        ("retry", {"eventIds": ["17"]}, "eventIds.0"),
        ("retry", {"eventIds": []}, "eventIds"),
        ("retry", {"eventIds": [str(uuid4())] * 1_001}, "eventIds"),
        ("retry", {"eventType": "a.b", "payload": {}}, "payload"),
        ("retry", {"eventType": "a.b", "aply": True}, "aply"),
        ("drain", {"code": "X"}, "eventType is missing"),
        ("drain", {"eventType": "a.b", "rate": 0}, "rate"),
    ]
    for path, order, word in orders:
        status, said = doors.ask(path, **order)
        assert (status, word in said["error"]) == (400, True), said


def test_a_drain_works_in_the_background_at_its_rate(doors: Doors) -> None:
    ids = [doors.operator.commit(payload=BAD) for _ in range(30)]
    wait_for(lambda: all(doors.status(event_id) == "dead_letter" for event_id in ids), what="their deaths")
    assert doors.ask("drain", "GET")[1] == {"drain": None}
    assert doors.ask("drain", eventType="lead.created")[1]["matched"] == 30
    status, begun = doors.ask("drain", eventType="lead.created", rate=10, limit=20, apply=True, by="ann")
    assert (status, begun["drain"]["running"], begun["drain"]["by"]) == (202, True, "ann")
    assert doors.ask("drain", eventType="lead.created", apply=True)[0] == 409
    wait_for(lambda: not doors.ask("drain", "GET")[1]["drain"]["running"], what="the end of the drain")
    assert doors.ask("drain", "GET")[1]["drain"]["retried"] == 20
    # Each died again, and none was tried twice.
    assert sorted(doors.retries(event_id) for event_id in ids) == [0] * 10 + [1] * 20
    (line,) = doors.logged("dlq_drained")
    assert (line["retried"], line["stopped"]) == (20, False)


def test_a_stop_ends_a_drain_between_two_chunks(doors: Doors) -> None:
    ids = [doors.dead() for _ in range(3)]
    assert doors.ask("drain", eventType="lead.created", rate=1, apply=True)[0] == 202
    wait_for(lambda: any(doors.retries(event_id) for event_id in ids), what="the first retry")
    assert doors.process.stop() == 143
    assert [line["stopped"] for line in doors.logged("dlq_drained")] == [True]
    assert sum(doors.retries(event_id) for event_id in ids) < 3


def test_without_a_token_there_is_no_door(
    operator: Operator, redis_url: str, database_url: str, mailbox: Mailbox, tmp_path: Path
) -> None:
    suite = Suite(redis_url, database_url, mailbox, tmp_path)
    try:
        shut = Doors(operator, suite.events_worker().ready())
        assert shut.ask("retry", eventType="lead.created", apply=True) == (404, {"error": "Not Found"})
    finally:
        suite.end()
