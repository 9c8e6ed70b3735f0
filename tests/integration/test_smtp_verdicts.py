"""What becomes of a mail, by how the server ended the conversation and where: the whole table, over real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, get_args

import pytest

from notifications_worker.channel import Circuit
from notifications_worker.channels.smtp_replies import SmtpFailure, classify
from notifications_worker.channels.smtp_session import Envelope
from scripted_smtp import ACCEPT_AND_CLOSE, ACCEPT_AND_HANG, CLOSE, CLOSE_WHILE_READING, HANG, ScriptedSmtp, Stage, Step
from smtp_pools import MAIL, PIPELINING, PLAIN, patience_with, pool_of, relay, trusting
from worker_runtime.outcome import DeadLetter, Defer, Retry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from notifications_worker.channels.smtp_pool import SmtpPool


class End(NamedTuple):
    """`unsent`: nobody can have got it. `suppress`: nothing more goes to this address."""

    outcome: type[Retry | Defer | DeadLetter]
    code: str
    circuit: Circuit
    unsent: bool = True
    suppress: str | None = None


OUT = End(Defer, "PROVIDER_UNAVAILABLE", Circuit.FAILED)
MISCONFIGURED = End(Defer, "PROVIDER_MISCONFIGURED", Circuit.MISCONFIGURED)
REJECTED = End(DeadLetter, "PROVIDER_REJECTED", Circuit.WORKS)
BOUNCED = REJECTED._replace(suppress="HARD_BOUNCE")
BUSY = End(Retry, "PROVIDER_BUSY", Circuit.WORKS)
GREYLISTED = End(Retry, "GREYLISTED", Circuit.WORKS)
FULL = End(Retry, "MAILBOX_FULL", Circuit.WORKS)
UNKNOWN = End(Retry, "DELIVERY_UNKNOWN", Circuit.UNTOLD, unsent=False)
SENT: End | None = None
NO_SUCH_RECIPIENT: Mapping[Stage, End | None] = {
    "MAIL": REJECTED,
    "RCPT": BOUNCED,
    "DATA": BOUNCED,
    "MESSAGE": BOUNCED,
}

# What a server may do instead of the right reply, and what it means before the message, at RCPT and after the dot.
BEFORE: tuple[Stage, ...] = ("BANNER", "EHLO", "STARTTLS", "AUTH")
TABLE: list[tuple[Step, Mapping[Stage, End | None]]] = [
    (HANG, dict.fromkeys((*BEFORE, "MAIL", "RCPT", "DATA"), OUT) | {"MESSAGE": UNKNOWN}),
    (CLOSE, dict.fromkeys((*BEFORE, "MAIL", "RCPT", "DATA"), OUT) | {"MESSAGE": UNKNOWN}),
    (b"what?\r\n", dict.fromkeys((*BEFORE, "MAIL", "RCPT", "DATA"), OUT) | {"MESSAGE": UNKNOWN}),
    ("421 4.3.2 closing", dict.fromkeys((*BEFORE, "MAIL", "RCPT", "DATA", "MESSAGE"), OUT)),
    ("450 4.7.1 greylisted", {"BANNER": OUT, "EHLO": OUT, **dict.fromkeys(("RCPT", "DATA", "MESSAGE"), GREYLISTED)}),
    ("451 4.3.0 local error", {"BANNER": OUT, "EHLO": OUT, **dict.fromkeys(("MAIL", "RCPT", "DATA", "MESSAGE"), BUSY)}),
    ("452 4.2.2 full", {"RCPT": FULL, "MESSAGE": FULL}),
    ("452 4.5.3 too many recipients", {"RCPT": BUSY}),
    ("454 4.7.0 not now", dict.fromkeys(("STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "MESSAGE"), MISCONFIGURED)),
    ("500 what", {"EHLO": MISCONFIGURED, "STARTTLS": MISCONFIGURED, "MAIL": MISCONFIGURED, "DATA": MISCONFIGURED}),
    ("530 5.7.0 log in", {"MAIL": MISCONFIGURED, "RCPT": MISCONFIGURED}),
    ("535 5.7.8 wrong", {"AUTH": MISCONFIGURED}),
    ("550 no", {"BANNER": OUT, **dict.fromkeys(("MAIL", "RCPT", "DATA", "MESSAGE"), REJECTED)}),
    ("550 5.7.1 policy", dict.fromkeys(("MAIL", "RCPT", "DATA", "MESSAGE"), REJECTED)),
    *((f"550 {code} gone", NO_SUCH_RECIPIENT) for code in ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1")),
    ("553 5.1.3 bad address", {"RCPT": BOUNCED}),
    ("550 5.1.0 odd", {"RCPT": REJECTED}),
    ("550 5.1.100 odd", {"RCPT": REJECTED}),
    ("552 5.2.2 full", {"RCPT": FULL, "MESSAGE": FULL}),
    ("552 5.3.4 too large", {"MAIL": REJECTED, "RCPT": REJECTED, "MESSAGE": REJECTED}),
    ("552 too many", {"RCPT": BUSY}),
    (ACCEPT_AND_CLOSE, {"MESSAGE": UNKNOWN}),
    (ACCEPT_AND_HANG, {"MESSAGE": UNKNOWN}),
    (CLOSE_WHILE_READING, {"MESSAGE": UNKNOWN}),
    ("250 2.0.0 ok\n2.0.0 twice", {"MAIL": SENT, "RCPT": SENT, "MESSAGE": SENT}),
    ("251 2.1.5 forwarded", {"RCPT": SENT}),
]
ROWS = [(at, step, end) for step, ends in TABLE for at, end in ends.items()]
KEPT_TOO_LONG: list[Step] = [HANG, CLOSE, "421 bye", "500 what", b"what?\r\n"]
KEPT: list[Stage] = ["RSET", "QUIT"]


def test_every_stage_is_in_the_table() -> None:
    assert {at for at, _, _ in ROWS} | set(KEPT) == set(get_args(Stage))


@pytest.mark.parametrize(("at", "step", "end"), ROWS, ids=str)
@pytest.mark.parametrize("extensions", [PLAIN, PIPELINING], ids=["one by one", "in one go"])
async def test_a_mail_ends(at: Stage, step: Step, end: End | None, extensions: tuple[str, ...]) -> None:
    async with ScriptedSmtp(tls="starttls", extensions=extensions) as server:
        login = relay(
            server,
            tls="starttls",
            tls_context=trusting(server),
            username="worker",
            password="secret",
            patience=patience_with(step),
        )
        async with pool_of(login) as pool:
            server.will(at, step)
            ended = await transmitted(pool)

    assert ended == end
    if end is SENT:
        assert len(server.accepted) == 1
    elif end and end.unsent:
        assert server.accepted == []


async def transmitted(pool: SmtpPool) -> End | None:
    try:
        await pool.transmit(MAIL)
    except SmtpFailure as failure:
        verdict = classify(failure)
        return End(type(verdict.outcome), verdict.outcome.code, verdict.circuit, verdict.unsent, verdict.suppress)
    return SENT


@pytest.mark.parametrize("at", KEPT)
@pytest.mark.parametrize("step", KEPT_TOO_LONG, ids=str)
@pytest.mark.parametrize("extensions", [PLAIN, PIPELINING], ids=["one by one", "in one go"])
async def test_a_connection_kept_for_too_long_costs_nobody_anything(
    at: Stage, step: Step, extensions: tuple[str, ...]
) -> None:
    async with (
        ScriptedSmtp(extensions=extensions) as server,
        pool_of(relay(server, patience=patience_with(step))) as pool,
    ):
        server.will(at, step)
        ends = [await transmitted(pool) for _ in range(3)]

    assert ends == [SENT] * 3
    assert len(server.accepted) == 3
    assert len(server.conversations) == (2 if at == "RSET" else 1)


@pytest.mark.parametrize("extensions", [PLAIN, PIPELINING], ids=["one by one", "in one go"])
async def test_a_mail_in_blocks_that_the_server_leaves_surely_was_not_sent(extensions: tuple[str, ...]) -> None:
    large = Envelope(MAIL.sender, MAIL.recipient, b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 100_000, "<1@x>")
    async with ScriptedSmtp(extensions=extensions) as server, pool_of(relay(server)) as pool:
        server.will("MESSAGE", CLOSE_WHILE_READING)
        with pytest.raises(SmtpFailure) as caught:
            await pool.transmit(large)

    verdict = classify(caught.value)
    assert (verdict.outcome.code, verdict.unsent) == ("PROVIDER_UNAVAILABLE", True)
    assert server.accepted == []
