"""Slack, as a server on this machine that answers what the test says."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiohttp import web

from embedded_stack.ports import free_port
from notifications_worker.channel import Circuit, NotAccepted
from notifications_worker.channels.slack import SlackChannel, SlackMessage
from notifications_worker.notification import Notification
from notifications_worker.settings import NotificationsSettings
from notifications_worker.templates import SHIPPED, Templates
from worker_runtime.egress import trusted_egress
from worker_runtime.outcome import DeadLetter, Defer, PermanentError, Retry
from worker_runtime.settings import SettingsError, load
from worker_runtime.testing import job_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MESSAGE = SlackMessage("C024BE91L", "A lead has come in.")


@dataclass
class Slack:
    url: str
    status: int = 200
    answer: Any = field(default_factory=lambda: {"ok": True, "channel": "C024BE91L", "ts": "1503435956.000247"})
    headers: dict[str, str] = field(default_factory=dict)
    got: list[Any] = field(default_factory=list)

    async def post(self, request: web.Request) -> web.StreamResponse:
        self.got.append((request.headers["Authorization"], await request.json()))
        if self.answer is None:
            assert request.transport
            request.transport.close()
            await asyncio.sleep(0)
        return web.json_response(self.answer, status=self.status, headers=self.headers)


@pytest_asyncio.fixture
async def slack() -> AsyncIterator[Slack]:
    server = Slack("")
    application = web.Application()
    application.router.add_post("/api/chat.postMessage", server.post)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api"
    yield server
    await runner.cleanup()


@asynccontextmanager
async def channel(url: str) -> AsyncIterator[SlackChannel]:
    async with trusted_egress() as http:
        yield SlackChannel(http, Templates(SHIPPED), url, "xoxb-secret")


async def refusal(url: str) -> NotAccepted:
    async with channel(url) as opened:
        with pytest.raises(NotAccepted) as caught:
            await opened.send(MESSAGE)
    assert "secret" not in str(caught.value.text) + str(caught.value.reply)
    return caught.value


async def test_a_message_is_posted_by_the_bot(slack: Slack) -> None:
    async with channel(slack.url) as opened:
        accepted = await opened.send(MESSAGE)

    assert accepted.provider_message_id == "C024BE91L:1503435956.000247"
    assert slack.got == [("Bearer xoxb-secret", {"channel": "C024BE91L", "text": "A lead has come in."})]


@pytest.mark.parametrize(
    ("status", "answer", "kind", "code", "circuit", "unsent"),
    [
        (200, {"ok": False, "error": "channel_not_found"}, DeadLetter, "PROVIDER_REJECTED", Circuit.WORKS, True),
        (200, {"ok": False, "error": "is_archived"}, DeadLetter, "PROVIDER_REJECTED", Circuit.WORKS, True),
        (200, {"ok": False, "error": "invalid_auth"}, Defer, "PROVIDER_MISCONFIGURED", Circuit.MISCONFIGURED, True),
        (200, {"ok": False, "error": "internal_error"}, Retry, "DELIVERY_UNKNOWN", Circuit.FAILED, False),
        (429, {"ok": False, "error": "ratelimited"}, Retry, "PROVIDER_BUSY", Circuit.WORKS, True),
        (503, {}, Retry, "DELIVERY_UNKNOWN", Circuit.FAILED, False),
        (200, "what", Retry, "DELIVERY_UNKNOWN", Circuit.FAILED, False),
        (200, None, Retry, "DELIVERY_UNKNOWN", Circuit.FAILED, False),
    ],
)
async def test_what_its_answers_mean(
    slack: Slack,
    status: int,
    answer: Any,
    kind: type,
    code: str,
    circuit: Circuit,
    unsent: bool,  # noqa: FBT001
) -> None:
    slack.status, slack.answer = status, answer
    verdict = (await refusal(slack.url)).verdict

    assert type(verdict.outcome) is kind
    assert (verdict.outcome.code, verdict.circuit, verdict.unsent) == (code, circuit, unsent)


async def test_it_says_when_to_come_back(slack: Slack) -> None:
    slack.status, slack.answer, slack.headers = 429, {"ok": False, "error": "ratelimited"}, {"Retry-After": "90"}
    outcome = (await refusal(slack.url)).verdict.outcome

    assert isinstance(outcome, Retry)
    assert outcome.floor == 90


async def test_what_could_not_be_reached_has_got_nothing() -> None:
    verdict = (await refusal(f"http://127.0.0.1:{free_port()}")).verdict

    assert isinstance(verdict.outcome, Defer)
    assert (verdict.circuit, verdict.unsent) == (Circuit.FAILED, True)


@pytest.mark.parametrize(
    ("recipient", "content", "reason"),
    [
        ({}, {"body": "b"}, "recipient.id is neither"),
        ({"id": "sam"}, {"body": "b"}, "recipient.id is neither"),
        ({"id": "C024BE91L"}, {"body": " "}, "content.body is empty"),
        ({"id": "C024BE91L"}, {"body": "x" * 40_001}, "content.body is empty or over 40000 characters"),
        ({"id": "#sales"}, {"templateId": "nope"}, "there is no template"),
    ],
)
async def test_what_can_never_be_sent_says_why(recipient: Any, content: Any, reason: str) -> None:
    async with channel("http://127.0.0.1:1") as opened:
        with pytest.raises(PermanentError, match=reason):
            await opened.compose(job_for(notification(recipient, content), queue="slack"))


async def test_a_template_s_text_is_what_it_says() -> None:
    content = {"templateId": "lead-welcome", "templateData": {"leadId": "L-1"}}
    async with channel("http://127.0.0.1:1") as opened:
        message = await opened.compose(job_for(notification({"id": "#sales"}, content), queue="slack"))

    assert message.channel == "#sales"
    assert message.text.strip()


def test_without_a_token_the_start_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENABLE_SLACK", "true")
    with pytest.raises(SettingsError, match="SLACK_BOT_TOKEN is not set"):
        load(NotificationsSettings)


def notification(recipient: Any, content: Any) -> Notification:
    payload = {"notificationId": "n", "tenantId": "t", "channel": "SLACK", "recipient": recipient, "content": content}
    return Notification.model_validate(payload)
