from __future__ import annotations

import ssl

import aiosmtplib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications_worker.channel import Circuit
from notifications_worker.channels.smtp_replies import Fault, SmtpFailure, Stage, classify, masked
from worker_runtime.outcome import DeadLetter, Defer, Retry

REJECTED = (DeadLetter, "PROVIDER_REJECTED", Circuit.WORKS)
BUSY = (Retry, "PROVIDER_BUSY", Circuit.WORKS)
GREYLISTED = (Retry, "GREYLISTED", Circuit.WORKS)
FULL = (Retry, "MAILBOX_FULL", Circuit.WORKS)
OUT = (Defer, "PROVIDER_UNAVAILABLE", Circuit.FAILED)
MISCONFIGURED = (Defer, "PROVIDER_MISCONFIGURED", Circuit.MISCONFIGURED)
UNKNOWN = (Retry, "DELIVERY_UNKNOWN", Circuit.UNTOLD)


@pytest.mark.parametrize(
    ("stage", "code", "text", "expected"),
    [
        (Stage.CONNECT, 421, "4.3.2 shutting down", OUT),
        (Stage.CONNECT, 450, "try later", OUT),
        (Stage.CONNECT, 554, "5.7.1 no service for you", OUT),
        (Stage.HELLO, 421, "bye", OUT),
        (Stage.HELLO, 550, "who are you", OUT),
        (Stage.HELLO, 502, "what is EHLO", MISCONFIGURED),
        (Stage.TLS, 454, "4.7.0 TLS not available", MISCONFIGURED),
        (Stage.TLS, 502, "no such command", MISCONFIGURED),
        (Stage.TLS, 421, "4.3.0 bye", OUT),
        (Stage.AUTH, 535, "5.7.8 wrong password", MISCONFIGURED),
        (Stage.AUTH, 535, "wrong password", MISCONFIGURED),
        (Stage.AUTH, 534, "5.7.9 mechanism too weak", MISCONFIGURED),
        (Stage.AUTH, 538, "5.7.11 encryption needed", MISCONFIGURED),
        (Stage.AUTH, 550, "account disabled", MISCONFIGURED),
        (Stage.AUTH, 454, "4.7.0 temporary authentication failure", MISCONFIGURED),
        (Stage.AUTH, 421, "too many logins", OUT),
        (Stage.AUTH, 432, "4.7.12 a password transition is needed", OUT),
        (Stage.MAIL, 530, "5.7.0 authentication required", MISCONFIGURED),
        (Stage.MAIL, 421, "4.7.0 too many messages", OUT),
        (Stage.MAIL, 451, "4.4.2 timeout", OUT),
        (Stage.MAIL, 452, "4.3.1 out of space", BUSY),
        (Stage.MAIL, 503, "5.5.1 who are you", MISCONFIGURED),
        (Stage.MAIL, 501, "5.1.7 bad sender", MISCONFIGURED),
        (Stage.MAIL, 553, "5.1.8 no such sender domain", MISCONFIGURED),
        (Stage.MAIL, 550, "5.7.1 sender not allowed", REJECTED),
        (Stage.MAIL, 552, "5.3.4 message too big", REJECTED),
        (Stage.MAIL, 552, "message too big", REJECTED),
        (Stage.RCPT, 421, "", OUT),
        (Stage.RCPT, 421, "4.7.0 too many errors", OUT),
        (Stage.RCPT, 450, "4.3.2 not accepting messages", OUT),
        (Stage.RCPT, 451, "4.4.1 no route", OUT),
        (Stage.RCPT, 450, "4.7.1 greylisted", GREYLISTED),
        (Stage.RCPT, 451, "4.7.0 try again later", GREYLISTED),
        (Stage.RCPT, 450, "4.2.0 <ada@example.com>: Recipient address rejected: Greylisted", GREYLISTED),
        (Stage.RCPT, 451, "please come back, graylisting in progress", GREYLISTED),
        (Stage.RCPT, 450, "4.2.1 mailbox busy", BUSY),
        (Stage.RCPT, 450, "mailbox busy", BUSY),
        (Stage.RCPT, 451, "local error", BUSY),
        (Stage.RCPT, 452, "4.5.3 too many recipients", BUSY),
        (Stage.RCPT, 452, "4.2.2 mailbox full", FULL),
        (Stage.RCPT, 552, "5.2.2 mailbox full", FULL),
        (Stage.RCPT, 552, "too many recipients", BUSY),
        (Stage.RCPT, 552, "5.3.4 message too big for it", REJECTED),
        (Stage.RCPT, 454, "4.7.0 temporary authentication failure", MISCONFIGURED),
        (Stage.RCPT, 454, "4.7.1 relay access denied", BUSY),
        (Stage.RCPT, 501, "5.1.3 bad address syntax", REJECTED),
        (Stage.RCPT, 504, "5.5.2 need a fully qualified address", REJECTED),
        (Stage.RCPT, 503, "5.5.1 need MAIL first", MISCONFIGURED),
        (Stage.RCPT, 530, "5.7.0 must issue STARTTLS first", MISCONFIGURED),
        (Stage.RCPT, 550, "", REJECTED),
        (Stage.RCPT, 550, "5.1.1 no such user", REJECTED),
        (Stage.RCPT, 550, "5.1.2 no such domain", REJECTED),
        (Stage.RCPT, 550, "5.1.6 moved", REJECTED),
        (Stage.RCPT, 550, "5.1.10 null MX", REJECTED),
        (Stage.RCPT, 550, "5.2.1 disabled", REJECTED),
        (Stage.RCPT, 550, "5.7.1 relaying denied", REJECTED),
        (Stage.RCPT, 553, "mailbox name not allowed", REJECTED),
        (Stage.RCPT, 554, "5.7.1 blocked", REJECTED),
        (Stage.DATA, 421, "4.3.2 going down", OUT),
        (Stage.DATA, 451, "4.7.1 greylisted", GREYLISTED),
        (Stage.DATA, 503, "5.5.1 no valid recipients", MISCONFIGURED),
        (Stage.DATA, 554, "5.5.1 no valid recipients", REJECTED),
        (Stage.MESSAGE, 421, "4.3.0 going down", OUT),
        (Stage.MESSAGE, 451, "4.3.0 queue file write error", BUSY),
        (Stage.MESSAGE, 451, "4.4.2 timed out", OUT),
        (Stage.MESSAGE, 452, "4.3.1 disk full", BUSY),
        (Stage.MESSAGE, 550, "5.7.1 looks like spam", REJECTED),
        (Stage.MESSAGE, 552, "5.3.4 too big", REJECTED),
        (Stage.MESSAGE, 552, "too much data", REJECTED),
        (Stage.MESSAGE, 554, "transaction failed", REJECTED),
    ],
)
def test_a_reply_means(stage: Stage, code: int, text: str, expected: tuple[type, str, Circuit]) -> None:
    verdict = classify(SmtpFailure.reply(stage, code, text))

    assert (type(verdict.outcome), verdict.outcome.code, verdict.circuit) == expected


@pytest.mark.parametrize(
    ("stage", "error", "expected"),
    [
        (Stage.CONNECT, ConnectionRefusedError(), OUT),
        (Stage.CONNECT, aiosmtplib.SMTPConnectError("no route to host"), OUT),
        (Stage.CONNECT, aiosmtplib.SMTPConnectTimeoutError("slow"), OUT),
        (Stage.CONNECT, aiosmtplib.SMTPConnectResponseError(554, "5.3.2 closed"), OUT),
        (Stage.CONNECT, ssl.SSLCertVerificationError("self-signed"), MISCONFIGURED),
        (Stage.CONNECT, ssl.SSLError("wrong version number"), MISCONFIGURED),
        (Stage.TLS, ssl.SSLCertVerificationError("expired"), MISCONFIGURED),
        (Stage.TLS, aiosmtplib.SMTPServerDisconnected("gone"), OUT),
        (Stage.TLS, ssl.SSLEOFError("eof"), OUT),
        (Stage.AUTH, aiosmtplib.SMTPAuthenticationError(535, "5.7.8 no"), MISCONFIGURED),
        (Stage.AUTH, aiosmtplib.SMTPReadTimeoutError("slow"), OUT),
        (Stage.MAIL, aiosmtplib.SMTPServerDisconnected("gone"), OUT),
        (Stage.RCPT, aiosmtplib.SMTPServerDisconnected("gone"), OUT),
        (Stage.RCPT, aiosmtplib.SMTPReadTimeoutError("slow"), OUT),
        (Stage.RCPT, aiosmtplib.SMTPResponseException(-1, "Malformed SMTP response line: hello"), OUT),
        (Stage.DATA, ConnectionResetError(), OUT),
        (Stage.DATA, aiosmtplib.SMTPReadTimeoutError("slow"), OUT),
        (Stage.MESSAGE, aiosmtplib.SMTPServerDisconnected("gone"), UNKNOWN),
        (Stage.MESSAGE, aiosmtplib.SMTPReadTimeoutError("slow"), UNKNOWN),
        (Stage.MESSAGE, ConnectionResetError(), UNKNOWN),
        (Stage.MESSAGE, aiosmtplib.SMTPResponseException(-1, "gibberish"), UNKNOWN),
    ],
)
def test_an_error_means(stage: Stage, error: Exception, expected: tuple[type, str, Circuit]) -> None:
    verdict = classify(SmtpFailure.of(stage, error))

    assert (type(verdict.outcome), verdict.outcome.code, verdict.circuit) == expected


@pytest.mark.parametrize("fault", [Fault.NO_STARTTLS, Fault.NO_AUTH, Fault.CERTIFICATE, Fault.NO_TLS])
def test_what_an_operator_must_put_right_opens_the_circuit_at_once(fault: Fault) -> None:
    assert classify(SmtpFailure(Stage.TLS, fault=fault)).circuit is Circuit.MISCONFIGURED


def test_an_address_the_server_cannot_spell_is_dead_and_the_server_is_well() -> None:
    verdict = classify(SmtpFailure(Stage.MAIL, fault=Fault.NO_SMTPUTF8))

    assert isinstance(verdict.outcome, DeadLetter)
    assert verdict.circuit is Circuit.WORKS


def test_greylisting_waits_five_minutes_and_a_full_mailbox_an_hour() -> None:
    greylisted = classify(SmtpFailure(Stage.RCPT, 451, "4.7.1 greylisted")).outcome
    full = classify(SmtpFailure(Stage.RCPT, 552, "5.2.2 full")).outcome
    busy = classify(SmtpFailure(Stage.RCPT, 452, "4.5.3 too many")).outcome

    assert isinstance(greylisted, Retry)
    assert isinstance(full, Retry)
    assert isinstance(busy, Retry)
    assert (greylisted.floor, full.floor, busy.floor) == (300, 3600, 0)


def test_the_reason_names_codes_and_stage() -> None:
    reason = classify(SmtpFailure(Stage.RCPT, 550, "5.1.1 <ada@example.com> unknown")).outcome.reason

    assert reason == "the mail server answered 550 5.1.1 to RCPT TO"


def test_an_enhanced_code_of_another_class_than_the_reply_is_not_believed() -> None:
    assert SmtpFailure(Stage.RCPT, 550, "4.7.1 odd").enhanced == ""


def test_only_the_start_of_the_text_is_an_enhanced_code() -> None:
    assert SmtpFailure(Stage.RCPT, 550, "see RFC 5.1.1 for more").enhanced == ""
    assert SmtpFailure(Stage.RCPT, 550, "5.1.1: unknown").enhanced == "5.1.1"


def test_the_log_shows_the_servers_words_without_the_person() -> None:
    words = masked("5.1.1 <ada@example.com>:\r\n User Ada unknown\tin table", "ada@example.com")

    assert words == "5.1.1 <address> User <recipient> unknown in table"


@given(
    stage=st.sampled_from(Stage),
    code=st.integers(400, 599),
    enhanced=st.from_regex(r"[245]\.\d{1,3}\.\d{1,3}", fullmatch=True) | st.just(""),
    address=st.emails(),
)
def test_every_reply_has_one_answer_that_names_nobody(stage: Stage, code: int, enhanced: str, address: str) -> None:
    verdict = classify(SmtpFailure.reply(stage, code, f"{enhanced} <{address}> said no"))

    assert isinstance(verdict.outcome, (Retry, Defer, DeadLetter))
    assert isinstance(verdict.outcome, Defer) == (verdict.circuit in {Circuit.FAILED, Circuit.MISCONFIGURED})
    assert "@" not in verdict.outcome.reason
    assert isinstance(verdict.outcome, DeadLetter) <= (code >= 500)
