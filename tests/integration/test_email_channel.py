"""What the channel tells of a mail that was taken, and of one that was not: for the record of attempts, and masked."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mails import notification, stationery
from notifications_worker.channel import NotAccepted, Reply
from notifications_worker.channels.dkim import DkimSigner
from notifications_worker.channels.email import EmailChannel
from notifications_worker.channels.smtp_pool import SmtpPool
from scripted_smtp import CLOSE, ScriptedSmtp
from smtp_pools import relay
from worker_runtime.testing import job_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SIGNER = DkimSigner("intelliflow.com", "mail2026", Ed25519PrivateKey.generate())
SIGNED_BY = ("mail2026._domainkey.intelliflow.com",)


@asynccontextmanager
async def channel_to(server: ScriptedSmtp) -> AsyncIterator[EmailChannel]:
    pool = SmtpPool(relay(server))
    channel = EmailChannel(pool, stationery(signer=SIGNER))
    try:
        yield channel
    finally:
        await pool.close()
        channel.close()


async def refused(server: ScriptedSmtp) -> NotAccepted:
    async with channel_to(server) as channel:
        message = await channel.compose(job_for(notification({"body": "b"})))
        with pytest.raises(NotAccepted) as caught:
            await channel.send(message)
    return caught.value


async def test_an_acceptance_is_told_with_the_servers_words_and_address() -> None:
    async with ScriptedSmtp() as server, channel_to(server) as channel:
        server.will("MESSAGE", "250 2.0.0 Ok: queued as 4F2A9 for ada@example.com")
        message = await channel.compose(job_for(notification({"body": "b"})))
        [route] = channel.routes(message)
        accepted = await route.send(message)

    assert (route.provider, route.circuit, route.shared) == ("smtp", "smtp", True)
    assert accepted.provider_message_id == "4F2A9"
    assert accepted.reply == Reply(
        250, "2.0.0", "2.0.0 Ok: queued as 4F2A9 for <address>", f"127.0.0.1:{server.port}", SIGNED_BY
    )


async def test_a_refusal_is_told_without_the_person() -> None:
    async with ScriptedSmtp() as server:
        server.always("RCPT", "550 5.1.1 <ada@example.com>: ada is unknown")
        error = await refused(server)

    said = "5.1.1 <address> <recipient> is unknown"
    assert error.reply == Reply(550, "5.1.1", said, f"127.0.0.1:{server.port}", SIGNED_BY)
    assert error.text == said
    assert (error.verdict.suppress, error.verdict.unsent) == ("HARD_BOUNCE", True)


async def test_silence_is_told_in_our_own_words() -> None:
    async with ScriptedSmtp() as server:
        server.always("MESSAGE", CLOSE)
        error = await refused(server)

    assert error.reply == Reply(
        None, None, "the mail server closed the connection, at the message", f"127.0.0.1:{server.port}", SIGNED_BY
    )
    assert error.verdict.unsent is False


async def test_a_server_that_is_out_has_no_address() -> None:
    async with ScriptedSmtp() as server:
        pass
    error = await refused(server)

    assert error.reply is not None
    assert (error.reply.status, error.reply.remote) == (None, None)
    assert "could not be reached" in str(error.verdict.outcome)
