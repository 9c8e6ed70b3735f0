from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications_worker.channel import Circuit
from notifications_worker.channels.sms_message import SmsMessage
from notifications_worker.channels.sms_replies import Refusal, failed, masked, refused, verdict
from worker_runtime.egress import EgressRefused, NoAnswer, NotReached
from worker_runtime.egress.retry_after import retry_after
from worker_runtime.outcome import DeadLetter, Defer, Retry

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
MESSAGE = SmsMessage("+15005550006", "Your code is wombat", 1, "t-1", "n-1")
REJECTED = (DeadLetter, "PROVIDER_REJECTED", Circuit.WORKS, True)
MISCONFIGURED = (Defer, "PROVIDER_MISCONFIGURED", Circuit.MISCONFIGURED, True)
LIMITED = (Defer, "RATE_LIMITED", Circuit.WORKS, True)
BUSY = (Retry, "PROVIDER_BUSY", Circuit.WORKS, True)
OUT = (Defer, "PROVIDER_UNAVAILABLE", Circuit.FAILED, True)
UNKNOWN = (Defer, "DELIVERY_UNKNOWN", Circuit.FAILED, False)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "21211", REJECTED),
        (400, "21610", REJECTED),
        (400, "21614", REJECTED),
        (400, "99999", REJECTED),
        (400, None, REJECTED),
        (409, None, REJECTED),
        (422, None, REJECTED),
        (400, "21606", MISCONFIGURED),
        (400, "21608", MISCONFIGURED),
        (401, "20003", MISCONFIGURED),
        (401, None, MISCONFIGURED),
        (403, None, MISCONFIGURED),
        (404, "20404", MISCONFIGURED),
        (404, None, MISCONFIGURED),
        (307, None, MISCONFIGURED),
        (429, "20429", LIMITED),
        (429, "63038", LIMITED),
        (429, None, LIMITED),
        (429, "21611", BUSY),
        (400, "21611", BUSY),
        (408, None, UNKNOWN),
        (500, "20500", UNKNOWN),
        (500, None, UNKNOWN),
        (502, None, UNKNOWN),
        (503, "20503", UNKNOWN),
        (504, None, UNKNOWN),
        (599, None, UNKNOWN),
    ],
)
def test_an_error_has_its_class_by_code_then_by_status(
    status: int, code: str | None, expected: tuple[type, str, Circuit, bool]
) -> None:
    found = verdict(Refusal("twilio", status, (code,) if code else ()), NOW)

    assert (type(found.outcome), found.outcome.code, found.circuit, found.unsent) == expected
    assert found.suppress == ("OPTED_OUT" if code == "21610" else None)
    assert found.outcome.reason.startswith(f"twilio answered {status}")


@given(st.integers(300, 999), st.none() | st.text(max_size=6))
def test_nothing_a_provider_may_answer_is_without_a_verdict(status: int, code: str | None) -> None:
    found = verdict(Refusal("twilio", status, (code,) if code else ()), NOW)

    assert found.unsent == (found.outcome.code != "DELIVERY_UNKNOWN")


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (NotReached("api.twilio.com could not be connected to"), OUT),
        (EgressRefused("there is no host api.twilio.con"), MISCONFIGURED),
        (NoAnswer("api.twilio.com did not answer within 30 s", timed_out=True), UNKNOWN),
    ],
)
def test_silence_is_unsent_only_before_a_connection(
    failure: Exception, expected: tuple[type, str, Circuit, bool]
) -> None:
    found = failed("twilio", failure).verdict

    assert (type(found.outcome), found.outcome.code, found.circuit, found.unsent) == expected
    assert str(failure) in found.outcome.reason


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("120.1", 121),
        ("86400", 3600),
        ("-5", None),
        ("1e9", None),
        ("inf", None),
        ("soon", None),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60),
        ("Tue, 14 Nov 2023 22:14:20", 60),
        ("Tue, 14 Nov 2023 21:13:20 GMT", 0),
        ("Tue, 99 Nov 2023 21:13:20 GMT", None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("told", "seconds"), [(None, 60.0), ("7", 7.0), ("0", 1.0), ("nonsense", 60.0), ("99999", 3600)]
)
def test_a_full_quota_waits_for_what_is_told_or_a_minute(told: str | None, seconds: float) -> None:
    outcome = verdict(Refusal("twilio", 429, ("20429",), retry_after=told), NOW).outcome

    assert isinstance(outcome, Defer)
    assert outcome.seconds == seconds


def test_an_outage_too_may_tell_when_to_come_back() -> None:
    outcome = verdict(Refusal("twilio", 503, retry_after="120"), NOW).outcome

    assert isinstance(outcome, Defer)
    assert outcome.seconds == 120


def test_neither_the_number_nor_the_text_gets_out() -> None:
    words = (
        "The 'To' number +15005550006 (15005550006) is bad.\n"
        "Body: Your code is wombat. Ask a@example.com, +442071838750"
    )
    refusal = refused(Refusal("twilio", 400, ("21211",), words), MESSAGE, NOW)
    everything = f"{refusal!r} {refusal} {refusal.text} {refusal.reply} {refusal.verdict} {MESSAGE!r}"

    assert "5005550006" not in everything
    assert "wombat" not in everything
    assert "a@example" not in everything
    assert "2071838" not in everything
    assert masked("no number here", MESSAGE) == "no number here"
