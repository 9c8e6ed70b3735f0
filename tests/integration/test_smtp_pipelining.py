"""Several commands in one go (RFC 2920), large messages, and connections that fall out of step."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from notifications_worker.channels.smtp_replies import Fault, SmtpFailure, Stage, classify
from scripted_smtp import CLOSE, After, ScriptedSmtp
from smtp_pools import MAIL, PIPELINING, PLAIN, failure, pool_of, relay, trusting

if TYPE_CHECKING:
    from notifications_worker.channels.smtp_pool import SmtpPool

BOTH = pytest.mark.parametrize("extensions", [PLAIN, PIPELINING], ids=["one by one", "in one go"])
LARGE = replace(MAIL, content=b"Subject: large\r\n\r\n" + (b"." * 70 + b"\r\n") * 50_000)


async def arrived_before_the_reply(server: ScriptedSmtp, pool: SmtpPool) -> bytes:
    """Return what the server has of the commands after MAIL when it has not answered MAIL yet."""
    answer = asyncio.Event()
    server.will("MAIL", After(answer, "250 ok"))
    sending = asyncio.create_task(pool.transmit(MAIL))
    await server.reached("MAIL")
    early: bytes = bytes(server.conversations[-1].reader._buffer)  # type: ignore[attr-defined]
    answer.set()
    await sending
    return early


@pytest.mark.parametrize(
    ("extensions", "early"), [(PLAIN, b""), (PIPELINING, b"RCPT TO:<ada@example.com>\r\nDATA\r\n")]
)
async def test_commands_go_out_together_only_where_that_is_offered(extensions: tuple[str, ...], early: bytes) -> None:
    async with ScriptedSmtp(extensions=extensions) as server, pool_of(relay(server)) as pool:
        assert await arrived_before_the_reply(server, pool) == early

    assert len(server.accepted) == 1


@BOTH
async def test_the_message_waits_until_the_server_asks_for_it(extensions: tuple[str, ...]) -> None:
    asked = asyncio.Event()
    async with ScriptedSmtp(extensions=extensions) as server, pool_of(relay(server)) as pool:
        server.will("DATA", After(asked, "354 go on"))
        sending = asyncio.create_task(pool.transmit(MAIL))
        await server.reached("DATA")
        early = bytes(server.conversations[0].reader._buffer)  # type: ignore[attr-defined]
        asked.set()
        await sending

    assert early == b""
    assert len(server.accepted) == 1


@BOTH
async def test_a_refusal_leaves_the_connection_in_step(extensions: tuple[str, ...]) -> None:
    async with ScriptedSmtp(extensions=extensions) as server, pool_of(relay(server)) as pool:
        server.will("RCPT", "550 5.1.1 no such user")
        server.will("DATA", "503 5.5.1 no valid recipients") if "PIPELINING" in extensions else None
        with pytest.raises(SmtpFailure) as caught:
            await pool.transmit(MAIL)
        await pool.transmit(replace(MAIL, recipient="eve@example.com"))

    assert (caught.value.stage, caught.value.code) == (Stage.RCPT, 550)
    assert [mail.recipient for mail in server.accepted] == ["eve@example.com"]
    assert len(server.conversations) == 1


async def test_a_server_that_asks_for_the_message_of_a_refused_recipient_gets_none() -> None:
    async with ScriptedSmtp(extensions=PIPELINING) as server, pool_of(relay(server)) as pool:
        server.will("RCPT", "550 5.1.1 no such user")
        with pytest.raises(SmtpFailure) as caught:
            await pool.transmit(MAIL)
        assert (caught.value.stage, caught.value.code) == (Stage.RCPT, 550)
        assert server.accepted == []
        assert not pool._idle
        await pool.transmit(MAIL)

    assert len(server.conversations) == 2
    assert len(server.accepted) == 1


@BOTH
@pytest.mark.parametrize("step", ["421 4.7.0 enough messages on this connection", CLOSE], ids=str)
async def test_a_server_that_counts_messages_gets_the_next_on_another_connection(
    extensions: tuple[str, ...], step: str
) -> None:
    async with ScriptedSmtp(extensions=extensions) as server, pool_of(relay(server)) as pool:
        await pool.transmit(MAIL)
        server.will("MAIL", step)
        await pool.transmit(MAIL)

    assert [mail.connection for mail in server.accepted] == [0, 1]


@BOTH
async def test_a_server_that_wants_nobody_is_asked_once_more_and_no_more(extensions: tuple[str, ...]) -> None:
    async with ScriptedSmtp(extensions=extensions) as server, pool_of(relay(server)) as pool:
        await pool.transmit(MAIL)
        server.always("MAIL", "421 4.3.2 closing")
        with pytest.raises(SmtpFailure):
            await pool.transmit(MAIL)

        assert server.times("MAIL") == 3


@BOTH
async def test_a_word_nobody_asked_for_is_not_taken_for_an_answer(extensions: tuple[str, ...]) -> None:
    async with ScriptedSmtp(extensions=extensions) as server, pool_of(relay(server)) as pool:
        await pool.transmit(MAIL)
        server.conversations[0].writer.write(b"250 2.0.0 by the way\r\n")
        async with asyncio.timeout(10):
            while next(iter(pool._idle)).usable:  # noqa: ASYNC110  a protocol tells nobody
                await asyncio.sleep(0)
        await pool.transmit(MAIL)

    assert [mail.connection for mail in server.accepted] == [0, 1]


@BOTH
async def test_a_conversation_out_of_step_never_gets_as_far_as_a_message(extensions: tuple[str, ...]) -> None:
    async with ScriptedSmtp(extensions=extensions) as server:
        server.will("MAIL", b"250 2.1.0 ok\r\n250 2.1.0 ok, as I said\r\n")
        failed = await failure(server)

    assert failed.fault in {Fault.GARBLED, Fault.LOST}
    assert classify(failed).unsent
    assert server.accepted == []


@BOTH
async def test_a_large_message_arrives_whole(extensions: tuple[str, ...]) -> None:
    async with ScriptedSmtp(extensions=extensions) as server, pool_of(relay(server)) as pool:
        await pool.transmit(LARGE)
        await pool.transmit(MAIL)

    assert server.accepted[0].content == LARGE.content.replace(b"\r\n.", b"\r\n..")
    assert len(server.conversations) == 1


@pytest.mark.parametrize(
    ("size", "fits"), [("SIZE 4000000", True), ("SIZE", True), ("SIZE 0", True), ("SIZE 9", False)]
)
async def test_a_message_larger_than_the_server_takes_is_not_begun(size: str, fits: bool) -> None:  # noqa: FBT001
    async with ScriptedSmtp(extensions=(size,)) as server:
        if fits:
            async with pool_of(relay(server)) as pool:
                await pool.transmit(LARGE)
        else:
            failed = await failure(server, LARGE)
            assert (failed.fault, classify(failed).outcome.code) == (Fault.TOO_LARGE, "MESSAGE_TOO_LARGE")
            assert server.times("MAIL") == 0

    assert len(server.accepted) == fits


@pytest.mark.parametrize("address", ["a\r\nRCPT TO:<eve@example.com>", "a\x00b", "a\x7f"])
async def test_no_address_becomes_a_command(address: str) -> None:
    async with ScriptedSmtp() as server:
        failed = await failure(server, replace(MAIL, recipient=address))

    assert failed.fault is Fault.UNSPEAKABLE
    assert classify(failed).outcome.code == "PROVIDER_REJECTED"
    assert server.times("RCPT") == 0


async def test_the_remote_address_is_told_with_the_refusal() -> None:
    async with ScriptedSmtp() as server:
        server.always("RCPT", "550 5.7.1 no")
        failed = await failure(server)

    assert failed.remote == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("tls", ["off", "starttls", "implicit"])
@pytest.mark.parametrize("extensions", [PLAIN, PIPELINING], ids=["one by one", "in one go"])
def test_it_is_the_same_on_the_workers_own_event_loop(tls: Any, extensions: tuple[str, ...]) -> None:
    async def two_mails_and_a_goodbye() -> ScriptedSmtp:
        async with ScriptedSmtp(tls=tls, extensions=extensions) as server:
            context = None if tls == "off" else trusting(server)
            async with pool_of(relay(server, tls=tls, tls_context=context)) as pool:
                await pool.transmit(LARGE)
                server.will("RCPT", "550 5.1.1 no such user")
                server.will("DATA", "503 5.5.1 no valid recipients") if "PIPELINING" in extensions else None
                with pytest.raises(SmtpFailure):
                    await pool.transmit(MAIL)
                await pool.transmit(MAIL)
            await server.reached("QUIT")
        return server

    server = uvloop.run(two_mails_and_a_goodbye())
    assert len(server.accepted) == 2
    assert len(server.conversations) == 1
    assert server.conversations[0].secure == (tls != "off")
