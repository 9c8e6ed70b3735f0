"""The table of what a receiver may answer, and what becomes of the job."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications_worker.channel import Circuit
from notifications_worker.channels.webhook_replies import (
    accepted,
    excerpt,
    verdict_on_answer,
    verdict_on_failure,
)
from worker_runtime.egress import EgressRefused, NoAnswer, NotReached
from worker_runtime.egress.retry_after import retry_after
from worker_runtime.outcome import DeadLetter, Retry

NOW = 1_767_225_600.0
WORKS, FAILED = Circuit.WORKS, Circuit.FAILED


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
def test_only_2xx_is_success(status: int) -> None:
    assert accepted(status)


@pytest.mark.parametrize(
    ("status", "code", "floor", "circuit"),
    [
        (101, "WEBHOOK_REJECTED", 0, WORKS),
        (300, "WEBHOOK_REDIRECTED", 0, WORKS),
        (301, "WEBHOOK_REDIRECTED", 0, WORKS),
        (302, "WEBHOOK_REDIRECTED", 0, WORKS),
        (304, "WEBHOOK_REDIRECTED", 0, WORKS),
        (308, "WEBHOOK_REDIRECTED", 0, WORKS),
        (400, "WEBHOOK_REJECTED", 0, WORKS),
        (401, "WEBHOOK_REJECTED", 0, WORKS),
        (403, "WEBHOOK_REJECTED", 0, WORKS),
        (404, "WEBHOOK_REJECTED", 0, WORKS),
        (409, "WEBHOOK_REJECTED", 0, WORKS),
        (422, "WEBHOOK_REJECTED", 0, WORKS),
        (429, "WEBHOOK_THROTTLED", 60, WORKS),
        (500, "WEBHOOK_REJECTED", 0, FAILED),
        (501, "WEBHOOK_REJECTED", 0, FAILED),
        (502, "WEBHOOK_REJECTED", 60, FAILED),
        (503, "WEBHOOK_REJECTED", 60, FAILED),
        (504, "WEBHOOK_REJECTED", 60, FAILED),
        (599, "WEBHOOK_REJECTED", 0, FAILED),
    ],
)
def test_anything_else_is_tried_again(status: int, code: str, floor: float, circuit: Circuit) -> None:
    assert not accepted(status)
    verdict = verdict_on_answer(status, {}, NOW)
    assert isinstance(verdict.outcome, Retry)
    assert (verdict.outcome.code, verdict.outcome.floor, verdict.circuit) == (code, floor, circuit)
    assert str(status) in verdict.outcome.reason


def test_410_is_final() -> None:
    verdict = verdict_on_answer(410, {"Retry-After": "1"}, NOW)
    assert isinstance(verdict.outcome, DeadLetter)
    assert (verdict.outcome.code, verdict.circuit) == ("ENDPOINT_GONE", WORKS)


def test_an_endpoint_may_declare_more_to_be_final() -> None:
    for status in (400, 422):
        assert isinstance(verdict_on_answer(status, {}, NOW, {400, 422}).outcome, DeadLetter)
    assert isinstance(verdict_on_answer(404, {}, NOW, {400, 422}).outcome, Retry)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        (" 7 ", 7),
        ("120.1", 121),
        ("0.2", 1),
        (formatdate(NOW + 90, usegmt=True), 90),
        (formatdate(NOW - 90, usegmt=True), 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("", None),
        ("invalid", None),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        ("١٢٠", None),
        ("120 seconds", None),
        ("Thu, 99 Foo 2026", None),
        ("9" * 400, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(value: str, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.text())
def test_no_retry_after_breaks_the_reader(value: str) -> None:
    seconds = retry_after(value, NOW)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("status", "value", "floor"),
    [
        (429, "120", 120),
        (429, "5", 60),
        (429, "garbage", 60),
        (503, formatdate(NOW + 300, usegmt=True), 300),
        (503, "86400", 3600),
        (500, "30", 30),
        (404, "30", 30),
    ],
)
def test_retry_after_stretches_the_floor_up_to_an_hour(status: int, value: str, floor: float) -> None:
    outcome = verdict_on_answer(status, {"Retry-After": value}, NOW).outcome
    assert isinstance(outcome, Retry)
    assert outcome.floor == floor


def test_without_an_answer_the_verdict_says_whether_anything_was_sent() -> None:
    refused = verdict_on_failure(EgressRefused("not a public address"))
    assert refused.outcome == DeadLetter("EGRESS_REFUSED", "not a public address")
    assert (refused.circuit, refused.unsent) == (WORKS, True)

    for failure, floor, unsent in (
        (NotReached("could not be connected to"), 0, True),
        (NotReached("no connection", timed_out=True), 60, True),
        (NoAnswer("closed the connection"), 0, False),
        (NoAnswer("did not answer", timed_out=True), 60, False),
    ):
        verdict = verdict_on_failure(failure)
        assert isinstance(verdict.outcome, Retry)
        assert (verdict.outcome.floor, verdict.circuit, verdict.unsent) == (floor, FAILED, unsent)


def test_what_is_kept_of_a_body_is_readable_and_names_nobody() -> None:
    assert excerpt(b"no such user: ada@example.com, +15005550006") == "no such user: ***@example.com, +***06"
    assert excerpt(b"\xff\x00\x1b[31mred") == "\\xff��[31mred"
    assert excerpt(b"\x1f\x8b\x08", "gzip") == "(3 bytes or more, compressed)"


@given(st.binary(max_size=20_000))
def test_what_is_kept_of_any_body_can_be_stored(body: bytes) -> None:
    kept = excerpt(body)
    assert len(kept.encode()) <= 16_384
    assert "\x00" not in kept
