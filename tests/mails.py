"""Mails as a job makes them: composed by the channel itself, taken apart by Python's own parser."""

from __future__ import annotations

import asyncio
from email import message_from_bytes, policy
from email.headerregistry import Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from notifications_worker.channels.attachments import Attachments, MailLimits
from notifications_worker.channels.email import EmailChannel, Stationery
from notifications_worker.channels.smtp_pool import SmtpPool
from notifications_worker.channels.smtp_session import Relay
from notifications_worker.notification import Notification
from notifications_worker.templates import Templates
from worker_runtime.outcome import PermanentError
from worker_runtime.storage import ObjectStore
from worker_runtime.testing import job_for

if TYPE_CHECKING:
    from email.message import EmailMessage

    from notifications_worker.channels.smtp_session import Envelope

CREATED_AT = 1_767_225_600.5
RECIPIENT = "ada@example.com"
SENDER = Address("IntelliFlow", addr_spec="noreply@intelliflow.com")
LIMITS = MailLimits(attachment=10_000_000, message=20_000_000)


def stationery(folder: Path = Path("/nowhere"), limits: MailLimits = LIMITS, **more: Any) -> Stationery:
    return Stationery(SENDER, Templates(), Attachments(ObjectStore(str(folder)), limits), limits, **more)


PLAIN = stationery()


def notification(content: dict[str, Any], **changes: Any) -> Notification:
    good: dict[str, Any] = {
        "notificationId": "n-1",
        "tenantId": "t-1",
        "channel": "EMAIL",
        "recipient": {"email": RECIPIENT},
        "content": content,
    }
    return Notification.model_validate(good | changes)


def composed(content: dict[str, Any], paper: Stationery = PLAIN, **changes: Any) -> Envelope:
    job = job_for(notification(content, **changes), created_at=CREATED_AT)
    channel = EmailChannel(SmtpPool(Relay("127.0.0.1", 1, "off")), paper)
    try:
        return asyncio.run(channel.compose(job))
    finally:
        channel.close()


def parsed(envelope: Envelope) -> EmailMessage:
    return message_from_bytes(envelope.content.replace(b"\r\n", b"\n"), policy=policy.default)


def refusal(content: dict[str, Any], paper: Stationery = PLAIN, **changes: Any) -> PermanentError:
    with pytest.raises(PermanentError) as caught:
        composed(content, paper, **changes)
    return caught.value
