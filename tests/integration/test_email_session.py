"""One conversation with a mail server that answers anything, hangs or hangs up at any stage."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from notifications_worker.channel import Circuit
from notifications_worker.channels.smtp_replies import Fault, SmtpFailure, Stage, classify
from notifications_worker.channels.smtp_session import Envelope, Patience, Relay, hello_name
from scripted_smtp import (
    ACCEPT_AND_CLOSE,
    ACCEPT_AND_HANG,
    CLOSE,
    CLOSE_WHILE_READING,
    HANG,
    After,
    ScriptedSmtp,
    Step,
)
from scripted_smtp import Stage as At
from smtp_pools import MAIL, PIPELINING, PLAIN, failure, patience_with, pool_of, relay, trusting

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_message_arrives_as_it_was_written() -> None:
    async with ScriptedSmtp() as server, pool_of(relay(server)) as pool:
        said = await pool.transmit(MAIL)

    assert said == (250, "2.0.0 Ok: queued as 4F2A", f"127.0.0.1:{server.port}")
    [accepted] = server.accepted
    assert (accepted.sender, accepted.recipient) == (MAIL.sender, MAIL.recipient)
    assert (
        accepted.content == b"Subject: hello\r\n\r\n..dot\r\nbody\r\n"
    )  # The dot is doubled on the wire (RFC 5321, 4.5.2).
    assert server.conversations[0].commands[0] == "EHLO worker.test"
    assert f"MAIL FROM:<{MAIL.sender}> SIZE={len(MAIL.content)}" in server.conversations[0].commands


STAGES: dict[At, Stage] = {
    "BANNER": Stage.CONNECT,
    "EHLO": Stage.HELLO,
    "AUTH": Stage.AUTH,
    "MAIL": Stage.MAIL,
    "RCPT": Stage.RCPT,
    "DATA": Stage.DATA,
    "MESSAGE": Stage.MESSAGE,
}


@pytest.mark.parametrize(
    "reply", ["421 4.3.2 closing", "451 4.3.0 not now", "550 5.7.1 no", "554 5.0.0 a\n5.0.0 b", "500 what"]
)
@pytest.mark.parametrize("at", STAGES)
@pytest.mark.parametrize("extensions", [PLAIN, PIPELINING])
async def test_a_reply_is_told_with_its_stage(at: At, reply: str, extensions: tuple[str, ...]) -> None:
    async with ScriptedSmtp(extensions=extensions) as server:
        server.always(at, reply)
        failed = await failure(server, username="worker", password="secret")

    assert (failed.stage, failed.code, failed.fault) == (STAGES[at], int(reply[:3]), None)
    assert server.accepted == []


SILENCE_AND_GIBBERISH: list[tuple[Step, set[Fault]]] = [
    (HANG, {Fault.TIMEOUT}),
    (CLOSE, {Fault.LOST, Fault.UNREACHABLE}),
    (b"hello there\r\n", {Fault.GARBLED}),
    (b"250-never ends\r\n", {Fault.TIMEOUT}),
    (b"399 odd\r\n", {Fault.GARBLED}),
]
ODD_SUCCESS: tuple[Step, set[Fault]] = (b"299 odd\r\n", {Fault.GARBLED})


@pytest.mark.parametrize(
    ("at", "step", "faults"),
    [(at, *case) for at in STAGES for case in SILENCE_AND_GIBBERISH]
    # Every 2xx accepts a message, so that stage is left out here.
    + [(at, *ODD_SUCCESS) for at in STAGES if at != "MESSAGE"],
)
async def test_silence_and_gibberish_are_told_with_their_stage(at: At, step: Step, faults: set[Fault]) -> None:
    async with ScriptedSmtp() as server:
        server.always(at, step)
        failed = await failure(server, username="worker", password="secret", patience=patience_with(step))

    assert (failed.stage, failed.code) == (STAGES[at], None)
    assert failed.fault in faults
    assert classify(failed).circuit is (Circuit.UNTOLD if at == "MESSAGE" else Circuit.FAILED)


@pytest.mark.parametrize("step", [ACCEPT_AND_CLOSE, ACCEPT_AND_HANG, CLOSE_WHILE_READING])
async def test_what_happens_after_the_message_left_is_unknown(step: Step) -> None:
    async with ScriptedSmtp() as server:
        server.will("MESSAGE", step)
        failed = await failure(server, patience=patience_with(step))

    assert classify(failed).outcome.code == "DELIVERY_UNKNOWN"


async def test_nobody_listening_is_an_outage() -> None:
    async with ScriptedSmtp() as server:
        pass
    failed = await failure(server)

    assert (failed.stage, failed.fault) == (Stage.CONNECT, Fault.UNREACHABLE)


async def test_starttls_that_is_not_offered_is_never_done_without() -> None:
    async with ScriptedSmtp(tls="off") as server:
        failed = await failure(
            server, tls="starttls", tls_context=trusting(server), username="worker", password="secret"
        )

    assert failed.fault is Fault.NO_STARTTLS
    assert server.conversations[0].commands == ["EHLO worker.test"]


@pytest.mark.parametrize(
    ("step", "code", "fault"),
    [
        ("454 4.7.0 TLS not available", 454, None),
        ("502 no such command", 502, None),
        (CLOSE, None, Fault.LOST),
        (HANG, None, Fault.TIMEOUT),
    ],
)
async def test_starttls_that_is_refused_is_never_done_without(
    step: Step, code: int | None, fault: Fault | None
) -> None:
    async with ScriptedSmtp(tls="starttls") as server:
        server.always("STARTTLS", step)
        login: dict[str, Any] = {"tls_context": trusting(server), "username": "worker", "password": "secret"}
        failed = await failure(server, tls="starttls", patience=patience_with(step), **login)

    assert (failed.stage, failed.code, failed.fault) == (Stage.TLS, code, fault)
    assert server.times("AUTH") == server.times("MAIL") == 0


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_mail_and_password_travel_encrypted(tls: Any) -> None:
    async with ScriptedSmtp(tls=tls) as server:
        context = trusting(server)
        async with pool_of(relay(server, tls=tls, tls_context=context, username="worker", password="secret")) as pool:
            await pool.transmit(MAIL)

    talk = server.conversations[0]
    assert talk.secure
    assert len(server.accepted) == 1
    assert [command.split()[0] for command in talk.commands].count("AUTH") == 1


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize("name", ["127.0.0.1", "mail.example.com"])
async def test_a_certificate_of_a_stranger_is_refused(tls: Any, name: str) -> None:
    async with ScriptedSmtp(tls=tls, name=name) as server:
        context = ssl.create_default_context() if name == "127.0.0.1" else trusting(server)
        failed = await failure(server, tls=tls, tls_context=context)

    assert failed.fault is Fault.CERTIFICATE
    assert classify(failed).circuit is Circuit.MISCONFIGURED


async def test_tls_to_a_port_without_it_is_a_setting_gone_wrong() -> None:
    async with ScriptedSmtp(tls="off") as server:
        failed = await failure(server, tls="implicit", tls_context=trusting(server))

    assert failed.fault is Fault.NO_TLS


async def test_a_server_without_login_is_a_setting_gone_wrong() -> None:
    async with ScriptedSmtp(extensions=()) as server:
        failed = await failure(server, username="worker", password="secret")

    assert failed.fault is Fault.NO_AUTH


async def test_a_wrong_password_is_tried_once_and_one_way() -> None:
    async with ScriptedSmtp() as server:
        server.always("AUTH", "535 5.7.8 wrong")
        await failure(server, username="worker", password="secret")

        assert server.times("AUTH") == 1


@pytest.mark.parametrize(("extensions", "accepted"), [(("SMTPUTF8", "8BITMIME"), 1), ((), 0)])
async def test_letters_outside_ascii_go_only_where_they_are_understood(
    extensions: tuple[str, ...], accepted: int
) -> None:
    envelope = Envelope("noreply@intelliflow.com", "ädä@example.com", b"hello\r\n", "<1@x>", utf8=True)
    async with ScriptedSmtp(extensions=extensions) as server, pool_of(relay(server)) as pool:
        try:
            await pool.transmit(envelope)
        except SmtpFailure as failed:
            assert failed.fault is Fault.NO_SMTPUTF8  # noqa: PT017 - either is right, depending on the server.

    assert len(server.accepted) == accepted
    assert all(mail.recipient == "ädä@example.com" for mail in server.accepted)


async def test_connections_are_reused() -> None:
    async with ScriptedSmtp() as server, pool_of(relay(server)) as pool:
        for _ in range(5):
            await pool.transmit(MAIL)

    assert len(server.conversations) == 1
    assert len(server.accepted) == 5
    assert server.times("RSET") == 4


async def test_a_refused_recipient_does_not_cost_the_connection() -> None:
    async with ScriptedSmtp() as server, pool_of(relay(server)) as pool:
        server.will("RCPT", "550 5.1.1 no such user")
        with pytest.raises(SmtpFailure):
            await pool.transmit(MAIL)
        await pool.transmit(MAIL)

    assert len(server.conversations) == 1
    assert len(server.accepted) == 1


@pytest.mark.parametrize("step", ["421 4.4.2 idle for too long", "500 what", CLOSE, HANG])
async def test_a_connection_gone_stale_is_replaced_without_a_word(step: Step) -> None:
    async with ScriptedSmtp() as server, pool_of(relay(server, patience=patience_with(step))) as pool:
        await pool.transmit(MAIL)
        server.will("RSET", step)
        await pool.transmit(MAIL)

    assert len(server.conversations) == 2
    assert len(server.accepted) == 2


async def test_a_server_that_was_restarted_is_not_an_outage() -> None:
    async with ScriptedSmtp() as server, pool_of(relay(server)) as pool:
        await pool.transmit(MAIL)
        await server.stop()
        await server.start(server.port)
        await pool.transmit(MAIL)

    assert len(server.accepted) == 2


async def test_no_more_connections_than_allowed() -> None:
    async with ScriptedSmtp() as server, pool_of(relay(server), connections=2) as pool:
        await asyncio.gather(*(pool.transmit(MAIL) for _ in range(20)))

    assert len(server.accepted) == 20
    assert server.most_at_once == 2


async def test_an_urgent_message_waits_for_no_other() -> None:
    async with ScriptedSmtp() as server, pool_of(relay(server, patience=Patience()), connections=1) as pool:
        answer = asyncio.Event()
        server.will("MESSAGE", After(answer, "250 2.0.0 kept"))
        slow = asyncio.create_task(pool.transmit(MAIL))
        await server.reached("MESSAGE")
        waiting = asyncio.create_task(pool.transmit(MAIL))

        await pool.transmit(replace(MAIL, urgent=True))
        assert not slow.done()
        assert not waiting.done()
        answer.set()
        await asyncio.gather(slow, waiting)
        assert len(server.conversations) == 2


async def test_a_connection_ends_after_its_share_of_messages() -> None:
    async with ScriptedSmtp() as server, pool_of(relay(server), messages_per_connection=2) as pool:
        for _ in range(5):
            await pool.transmit(MAIL)

    assert [mail.connection for mail in server.accepted] == [0, 0, 1, 1, 2]


async def test_an_idle_connection_says_goodbye() -> None:
    async with ScriptedSmtp() as server, pool_of(relay(server), idle_seconds=0.05) as pool:
        await pool.transmit(MAIL)
        await server.reached("QUIT")


@pytest.mark.parametrize("step", ["421 bye", "500 what", CLOSE, HANG])
async def test_closing_takes_no_longer_than_politeness(step: Step) -> None:
    async with ScriptedSmtp() as server, pool_of(relay(server)) as pool:
        server.always("QUIT", step)
        await pool.transmit(MAIL)
        async with asyncio.timeout(10):  # Patience with a reply is twice that here.
            await pool.close()


async def test_a_cancelled_message_spoils_nobody_elses() -> None:
    async with ScriptedSmtp() as server, pool_of(relay(server), connections=1) as pool:
        server.will("MESSAGE", HANG)
        cancelled = asyncio.create_task(pool.transmit(MAIL))
        await server.reached("MESSAGE")
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await pool.transmit(MAIL)

    assert [mail.connection for mail in server.accepted] == [1]


def test_the_name_in_ehlo_is_never_asked_of_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda *_: pytest.fail("asked DNS"))
    monkeypatch.setattr("socket.gethostname", lambda: "laptop")
    assert hello_name() == "[127.0.0.1]"
    monkeypatch.setattr("socket.gethostname", lambda: "worker-1.intelliflow.com")
    assert hello_name() == "worker-1.intelliflow.com"


def test_a_relay_never_shows_its_password() -> None:
    assert "hunter2" not in repr(Relay("mail.example.com", 587, "off", username="worker", password="hunter2"))


def test_a_ca_file_can_be_written(tmp_path: Path) -> None:
    ssl.create_default_context(cafile=ScriptedSmtp().ca_file(tmp_path))
