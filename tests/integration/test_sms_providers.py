"""What every SMS provider must do, whichever it is, held against a company that does what the test says."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from embedded_stack.sms_server import (
    ACCEPT_AND_CLOSE,
    ACCEPT_AND_FAIL,
    ACCEPT_AND_HANG,
    CLOSE,
    HANG,
    MUMBLE,
    Action,
    Answer,
    SmsServer,
)
from notifications_worker.channel import Accepted, Circuit, NotAccepted
from notifications_worker.channels.sms import KEPT_BYTES
from notifications_worker.channels.sms_message import SmsMessage
from notifications_worker.channels.sms_messagebird import MessageBirdSms
from notifications_worker.channels.sms_twilio import TwilioSms
from worker_runtime.clock import SystemClock
from worker_runtime.egress import trusted_egress
from worker_runtime.outcome import DeadLetter, Defer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from notifications_worker.channels.sms_provider import SmsProvider
    from worker_runtime.egress import EgressClient

NUMBER, TEXT = "+15005550010", "Your code is wombat {^} \N{GRINNING FACE}"
SENDER = "+15005550006"
SHORT_SECONDS = 0.3


def sms(number: str = NUMBER, body: str = TEXT, notification: str = "n-1") -> SmsMessage:
    return SmsMessage(number, body, 1, "t-1", notification)


def status_url(message: SmsMessage) -> str:
    return f"http://127.0.0.1:1/callbacks?about={message.notification_id}"


@dataclass
class Desk:
    """A provider, one that gives up soon, and the company behind both."""

    provider: SmsProvider
    hasty: SmsProvider
    company: SmsServer

    async def refused(self) -> NotAccepted:
        return await refused(self.provider)


async def refused(provider: SmsProvider, message: SmsMessage | None = None) -> NotAccepted:
    with pytest.raises(NotAccepted) as refusal:
        await provider.send(message or sms())
    return refusal.value


def made(kind: str, http: EgressClient, company: SmsServer, seconds: float = 10.0, sender: str = SENDER) -> SmsProvider:
    if kind == "messagebird":
        return MessageBirdSms(
            http,
            base_url=company.url,
            access_key=company.access_key,
            sender=sender,
            clock=SystemClock(),
            status_url=status_url,
            timeout_seconds=seconds,
        )
    return TwilioSms(
        http,
        base_url=company.url,
        account_sid=company.account_sid,
        auth_token=company.auth_token,
        sender=sender,
        clock=SystemClock(),
        status_url=status_url,
        timeout_seconds=seconds,
    )


@pytest.fixture
def company() -> Iterator[SmsServer]:
    with SmsServer() as server:
        yield server


@pytest_asyncio.fixture(params=["twilio", "messagebird"])
async def desk(
    request: pytest.FixtureRequest, company: SmsServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    # What would send Twilio's client to another host.
    monkeypatch.setenv("TWILIO_EDGE", "dublin")
    monkeypatch.setenv("TWILIO_REGION", "ie1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with trusted_egress(kept_bytes=KEPT_BYTES) as http:
        yield Desk(made(request.param, http, company), made(request.param, http, company, SHORT_SECONDS), company)


async def test_a_message_arrives_as_it_was_written(desk: Desk) -> None:
    accepted = await desk.provider.send(sms())

    [arrived] = desk.company.messages
    assert (arrived.to, arrived.body, arrived.sender) == (NUMBER, TEXT, SENDER)
    assert arrived.status_url == status_url(sms())
    assert accepted.provider_message_id == arrived.sid
    assert accepted.reply is not None
    assert (accepted.reply.status, accepted.reply.remote) == (201, "127.0.0.1")


async def test_a_hundred_at_once_are_a_hundred(desk: Desk) -> None:
    sent = await asyncio.gather(*(desk.provider.send(sms(body=f"text {n}")) for n in range(100)))

    assert {one.provider_message_id for one in sent} == {one.sid for one in desk.company.messages}
    assert {one.body for one in desk.company.messages} == {f"text {n}" for n in range(100)}
    by_sid = {one.sid: one.body for one in desk.company.messages}
    assert [by_sid[str(one.provider_message_id)] for one in sent] == [f"text {n}" for n in range(100)]


async def test_a_full_quota_puts_off_for_what_the_company_says(desk: Desk) -> None:
    desk.company.will(Answer(429, 20429, headers={"Retry-After": "7"}))

    verdict = (await desk.refused()).verdict

    assert isinstance(verdict.outcome, Defer)
    assert (verdict.outcome.code, verdict.outcome.seconds, verdict.circuit) == ("RATE_LIMITED", 7, Circuit.WORKS)
    assert verdict.unsent
    assert desk.company.requests == 1  # No client retries by itself.


async def test_two_errors_at_once_keep_their_own_headers(desk: Desk) -> None:
    desk.company.will(*(Answer(429, 20429, headers={"Retry-After": str(n)}) for n in range(1, 21)))

    refusals = await asyncio.gather(*(desk.refused() for _ in range(20)))

    assert sorted(one.verdict.outcome.seconds for one in refusals if isinstance(one.verdict.outcome, Defer)) == list(
        range(1, 21)
    )


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_server_error_is_unknown_and_counts_against_the_provider(desk: Desk, status: int) -> None:
    desk.company.will(Answer(status))

    refusal = await desk.refused()

    assert (refusal.verdict.outcome.code, refusal.verdict.circuit) == ("DELIVERY_UNKNOWN", Circuit.FAILED)
    assert not refusal.verdict.unsent
    assert desk.company.requests == 1
    assert await desk.provider.look_up(sms(), time.time()) is None


@pytest.mark.parametrize("action", [ACCEPT_AND_HANG, ACCEPT_AND_CLOSE, ACCEPT_AND_FAIL])
async def test_what_was_accepted_in_silence_is_found(desk: Desk, action: Action) -> None:
    desk.company.will(action)
    before = time.time()

    refusal = await refused(desk.hasty)
    found = await desk.provider.look_up(sms(), before)

    assert (refusal.verdict.outcome.code, refusal.verdict.unsent) == ("DELIVERY_UNKNOWN", False)
    [kept] = desk.company.messages
    assert isinstance(found, Accepted)
    assert found.provider_message_id == kept.sid


@pytest.mark.parametrize("action", [HANG, CLOSE, MUMBLE])
async def test_what_was_not_accepted_is_not_found(desk: Desk, action: Action) -> None:
    desk.company.will(action)
    before = time.time()

    refusal = await refused(desk.hasty)

    assert (refusal.verdict.outcome.code, refusal.verdict.circuit) == ("DELIVERY_UNKNOWN", Circuit.FAILED)
    assert await desk.provider.look_up(sms(), before) is None


async def test_another_message_to_the_same_number_is_not_taken_for_it(desk: Desk) -> None:
    await desk.provider.send(sms(body="Your code is 1234", notification="n-0"))
    await desk.provider.send(sms(number="+15005550011", notification="n-2"))

    assert await desk.provider.look_up(sms(), time.time()) is None


async def test_it_is_found_among_many_long_ones(desk: Desk) -> None:
    accepted = await desk.provider.send(sms())
    for number in range(15):
        await desk.provider.send(sms(body="ß" * 1500 + str(number), notification=f"m-{number}"))

    found = await desk.provider.look_up(sms(), time.time())

    assert found is not None
    assert found.provider_message_id == accepted.provider_message_id


async def test_a_company_that_cannot_tell_now_is_no_leave_to_send_again(desk: Desk) -> None:
    desk.company.stop()

    with pytest.raises(NotAccepted) as refusal:
        await desk.provider.look_up(sms(), time.time())

    assert isinstance(refusal.value.verdict.outcome, Defer)
    desk.company.start()


async def test_a_company_that_is_not_there_got_nothing(desk: Desk) -> None:
    desk.company.stop()

    verdict = (await desk.refused()).verdict
    desk.company.start()

    assert (verdict.outcome.code, verdict.circuit, verdict.unsent) == ("PROVIDER_UNAVAILABLE", Circuit.FAILED, True)
    assert (await desk.provider.send(sms())).provider_message_id


async def test_a_wrong_login_stops_the_queue_and_loses_nothing(desk: Desk) -> None:
    desk.company.auth_token = desk.company.access_key = "changed"

    verdict = (await desk.refused()).verdict

    assert isinstance(verdict.outcome, Defer)
    assert (verdict.outcome.code, verdict.circuit) == ("PROVIDER_MISCONFIGURED", Circuit.MISCONFIGURED)
    assert verdict.unsent


async def test_a_send_that_was_cancelled_leaves_a_usable_client(desk: Desk) -> None:
    desk.company.will(ACCEPT_AND_HANG, HANG, ACCEPT_AND_HANG)
    sending = [asyncio.create_task(desk.provider.send(sms())) for _ in range(3)]
    assert await asyncio.to_thread(desk.company.wait_until, lambda company: company.requests == 3)
    for task in sending:
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*sending, return_exceptions=True)
    )

    accepted = await desk.provider.send(sms(body="after"))

    assert accepted.provider_message_id == desk.company.messages[-1].sid


async def test_no_secret_number_or_text_is_in_any_log_error_or_repr(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    words = f"no: {NUMBER} must not get '{TEXT}'"
    steps = (Answer(400, 21211, words), Answer(400, 12, words), Answer(503, 20503, words), Answer(502), MUMBLE)
    told = []
    for step in steps:
        desk.company.will(step)
        refusal = await desk.refused()
        told += [repr(refusal), str(refusal), str(refusal.verdict), str(refusal.reply), repr(refusal.__cause__)]
    await desk.provider.send(sms())
    told += [repr(desk.provider), repr(sms()), caplog.text]

    for secret in (NUMBER[1:], "wombat", desk.company.auth_token, desk.company.access_key):
        assert secret not in "\n".join(told)


async def test_a_redirect_is_not_followed_with_the_login(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        desk.company.will(Answer(307, headers={"Location": f"http://127.0.0.1:{trap.getsockname()[1]}/"}))
        verdict = (await desk.refused()).verdict
        trap.settimeout(0)
        with pytest.raises(BlockingIOError):
            trap.accept()

    assert verdict.outcome.code == "PROVIDER_MISCONFIGURED"


async def test_messagebirds_bad_sender_is_the_operators_mistake_a_bad_text_the_producers(company: SmsServer) -> None:
    async with trusted_egress() as http:
        provider = made("messagebird", http, company, sender="INTELLIFLOW")
        company.will(Answer(422, 10, "originator: is invalid"), Answer(422, 10, "body: is invalid"), Answer(422, 25))

        assert (await refused(provider)).verdict.circuit is Circuit.MISCONFIGURED
        assert isinstance((await refused(provider)).verdict.outcome, DeadLetter)
        assert (await refused(provider)).verdict.circuit is Circuit.MISCONFIGURED


@pytest.mark.parametrize(
    ("to", "sender", "code", "outcome"),
    [
        ("+15005550001", SENDER, "21211", "PROVIDER_REJECTED"),
        ("+15005550002", SENDER, "21612", "PROVIDER_REJECTED"),
        ("+15005550003", SENDER, "21408", "PROVIDER_REJECTED"),
        ("+15005550004", SENDER, "21610", "PROVIDER_REJECTED"),
        ("+15005550009", SENDER, "21614", "PROVIDER_REJECTED"),
        (NUMBER, "+15005550001", "21212", "PROVIDER_MISCONFIGURED"),
        (NUMBER, "+15005550007", "21606", "PROVIDER_MISCONFIGURED"),
        (NUMBER, "+15005550008", "21611", "PROVIDER_BUSY"),
    ],
)
async def test_twilios_magic_numbers(company: SmsServer, to: str, sender: str, code: str, outcome: str) -> None:
    async with trusted_egress() as http:
        refusal = await refused(made("twilio", http, company, sender=sender), sms(to))

    assert refusal.reply is not None
    assert (refusal.reply.code, refusal.verdict.outcome.code) == (code, outcome)
    assert refusal.verdict.suppress == ("OPTED_OUT" if code == "21610" else None)


async def test_a_messaging_service_of_twilios_is_a_sender_too(company: SmsServer) -> None:
    service = "MG" + "a" * 32
    async with trusted_egress(kept_bytes=KEPT_BYTES) as http:
        provider = made("twilio", http, company, sender=service)
        accepted = await provider.send(sms())
        found = await provider.look_up(sms(), time.time())

    assert company.messages[0].sender == service
    assert found is not None
    assert found.provider_message_id == accepted.provider_message_id


async def test_twilio_is_not_believed_to_have_sent_what_it_says_failed(company: SmsServer) -> None:
    async with trusted_egress(kept_bytes=KEPT_BYTES) as http:
        provider = made("twilio", http, company)
        sid = (await provider.send(sms(body="hello"))).provider_message_id
        kept = company._kept[str(sid)]
        object.__setattr__(kept, "status", "failed")

        assert await provider.look_up(sms(body="hello"), time.time()) is None


async def test_an_older_equal_text_is_not_taken_for_this_one(company: SmsServer) -> None:
    async with trusted_egress(kept_bytes=KEPT_BYTES) as http:
        provider = made("twilio", http, company)
        await provider.send(sms())

        assert await provider.look_up(sms(), time.time() + 60) is None
        assert await provider.look_up(sms(), time.time()) is not None
