"""Pools of connections to a scripted mail server, which is waited for no longer than it matters."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from notifications_worker.channels.smtp_pool import PoolLimits, SmtpPool
from notifications_worker.channels.smtp_replies import SmtpFailure
from notifications_worker.channels.smtp_session import Envelope, Patience, Relay
from scripted_smtp import ACCEPT_AND_HANG, HANG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from scripted_smtp import ScriptedSmtp

# For a server that never answers; all that it does answer must come within this too.
IMPATIENT = Patience(connect=0.7, command=0.7, block=0.7, message=0.7, goodbye=0.7)
PATIENT = Patience(connect=20, command=20, block=20, message=20, goodbye=20)
MAIL = Envelope("noreply@intelliflow.com", "ada@example.com", b"Subject: hello\r\n\r\n.dot\r\nbody\r\n", "<1@x>")
PLAIN = ("SIZE 10000000", "8BITMIME", "AUTH PLAIN LOGIN")
PIPELINING = (*PLAIN, "PIPELINING")


def relay(server: ScriptedSmtp, **changes: Any) -> Relay:
    chosen: dict[str, Any] = {"tls": "off", "hello": "worker.test", "patience": PATIENT, **changes}
    return Relay("127.0.0.1", server.port, **chosen)


def trusting(server: ScriptedSmtp) -> ssl.SSLContext:
    context = ssl.create_default_context()
    server.authority.configure_trust(context)
    return context


def patience_with(step: object) -> Patience:
    """Return how long to wait for a server that does this."""
    silent = step in {HANG, ACCEPT_AND_HANG} or (isinstance(step, bytes) and step[3:4] == b"-")
    return IMPATIENT if silent else PATIENT


@asynccontextmanager
async def pool_of(relay: Relay, **limits: Any) -> AsyncIterator[SmtpPool]:
    pool = SmtpPool(relay, PoolLimits(**limits))
    try:
        yield pool
    finally:
        await pool.close()


async def failure(server: ScriptedSmtp, envelope: Envelope = MAIL, **changes: Any) -> SmtpFailure:
    async with pool_of(relay(server, **changes)) as pool:
        with pytest.raises(SmtpFailure) as caught:
            await pool.transmit(envelope)
        return caught.value
