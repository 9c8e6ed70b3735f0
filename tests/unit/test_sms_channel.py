from __future__ import annotations

from typing import Any

import pytest
import structlog

from notifications_worker.channels.sms import SmsChannel, sms_channel
from notifications_worker.channels.sms_message import SmsMessage
from notifications_worker.channels.sms_mock import MockSms
from notifications_worker.notification import Notification
from notifications_worker.settings import NotificationsSettings
from notifications_worker.templates import Templates
from worker_runtime.outcome import PermanentError
from worker_runtime.settings import load
from worker_runtime.testing import job_for

NUMBER = "+15005550006"


def notification(phone: str | None = NUMBER, **content: Any) -> Any:
    payload = {
        "notificationId": "n-1",
        "tenantId": "t-1",
        "channel": "SMS",
        "recipient": {"phone": phone} if phone else {},
        "content": content,
    }
    return job_for(Notification.model_validate(payload), job_id="n-1", name="send", queue="sms", created_at=1.0)


def channel(**changes: Any) -> SmsChannel:
    limits: dict[str, Any] = {"max_segments": 10, "require_assigned": False}
    return SmsChannel([MockSms()], Templates(), **limits | changes)


async def test_the_body_is_the_message() -> None:
    message = await channel().compose(notification(body="Hello, Ada ", subject="not for SMS"))

    assert (message.to, message.body, message.parts) == (NUMBER, "Hello, Ada ", 1)
    assert await channel().compose(notification(body="Hello, Ada ")) == message


async def test_a_template_gives_its_text() -> None:
    message = await channel().compose(notification(templateId="lead-welcome", templateData={"firstName": "Ada"}))

    assert "Ada" in message.body
    assert message.body == message.body.rstrip()


A_FILE = {"filename": "a", "storageKey": "a"}


@pytest.mark.parametrize(
    ("phone", "content", "complaint"),
    [
        (None, {"body": "x"}, "recipient.phone is missing"),
        ("0049 171", {"body": "x"}, "recipient.phone is not a number in E.164"),
        (NUMBER, {}, "content.body is missing"),
        (NUMBER, {"body": " \n"}, "content.body is empty"),
        (
            NUMBER,
            {"body": "x", "attachments": [{"filename": "a", "storageKey": "a"}]},
            "content.attachments cannot travel by SMS",
        ),
        (NUMBER, {"body": "x" * 1531}, "content.body takes 11 SMS, and at most 10 are sent"),
        (NUMBER, {"body": "я" * 671}, "content.body takes 11 SMS, and at most 10 are sent"),
    ],
)
async def test_what_can_never_be_sent_names_the_field(
    phone: str | None, content: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(PermanentError) as refused:
        await channel().compose(notification(phone, **content))

    assert str(refused.value).startswith(f"INVALID_PAYLOAD: {complaint}")


async def test_half_of_a_surrogate_pair_is_refused_rather_than_crashing_the_client() -> None:
    half = notification(body="x")
    object.__setattr__(half.payload.content, "body", "\ud83d")
    with pytest.raises(PermanentError, match="surrogate"):
        await channel().compose(half)


async def test_ten_full_parts_are_sent() -> None:
    assert (await channel().compose(notification(body="x" * 1530))).parts == 10
    with pytest.raises(PermanentError, match="takes 2 SMS, and at most 1 are"):
        await channel(max_segments=1).compose(notification(body="x" * 161))


async def test_a_number_must_be_assigned_where_that_is_asked_for() -> None:
    with pytest.raises(PermanentError, match="assigned"):
        await channel(require_assigned=True).compose(notification("+15555550006", body="x"))


async def test_the_mock_says_that_nothing_was_sent() -> None:
    message = await channel().compose(notification(body="secret"))
    [route] = channel().routes(message)
    with structlog.testing.capture_logs() as lines:
        accepted = await route.send(message)

    assert (accepted.provider_message_id, accepted.pretended) == (None, True)
    [line] = lines
    assert (line["event"], line["log_level"], line["recipient"]) == ("sms_not_sent", "warning", "+***06")
    assert "secret" not in str(line)


async def test_the_first_provider_is_in_front_and_the_failover_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ENABLE_SMS": "true",
        "SMS_PROVIDER": "messagebird",
        "SMS_FAILOVER_PROVIDER": "twilio",
        "SMS_FROM": NUMBER,
        "MESSAGEBIRD_ACCESS_KEY": "key",
        "TWILIO_ACCOUNT_SID": "AC1",
        "TWILIO_AUTH_TOKEN": "token",
    }.items():
        monkeypatch.setenv(name, value)
    async with sms_channel(load(NotificationsSettings)) as opened:
        routes = opened.routes(await opened.compose(notification(body="x")))

    assert opened.providers == ("messagebird", "twilio")
    assert [(route.provider, route.circuit, route.shared) for route in routes] == [
        ("messagebird", "messagebird", True),
        ("twilio", "twilio", True),
    ]
    assert all(route.look_up for route in routes)


def test_a_reference_is_the_notifications_own_and_tells_nothing() -> None:
    one, other = (SmsMessage(NUMBER, "x", 1, tenant, "n-1") for tenant in ("t-1", "t-2"))

    assert one.reference == SmsMessage(NUMBER, "y", 1, "t-1", "n-1").reference != other.reference
    assert "n-1" not in one.reference
    assert len(one.reference) == 32
    assert channel().shown(NUMBER) == "+***06"
