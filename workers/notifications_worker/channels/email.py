"""E-mail over SMTP, one recipient a message."""

from __future__ import annotations

import re
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

from notifications_worker.channel import Accepted, ChannelName, NotAccepted, Route
from notifications_worker.channels.email_message import envelope
from notifications_worker.channels.smtp_pool import SmtpPool
from notifications_worker.channels.smtp_replies import SmtpFailure, classify, masked
from notifications_worker.channels.smtp_session import Relay
from notifications_worker.templates import Rendered, Templates
from worker_runtime.outcome import PermanentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from email.headerregistry import Address

    from notifications_worker.channels.smtp_session import Envelope
    from notifications_worker.notification import Content, Notification
    from notifications_worker.settings import NotificationsSettings
    from worker_runtime.job import Job

__all__ = ["EmailChannel", "email_channel"]

_QUEUE_ID = re.compile(r"(?:\bqueued as |\bid=)([\w.-]{4,100})")


class EmailChannel:
    """See `Channel`."""

    name: ClassVar[ChannelName] = ChannelName.EMAIL
    keeps_payload: ClassVar[bool] = False
    providers: tuple[str, ...] = ("smtp",)
    circuits: tuple[str, ...] = ("smtp",)

    def __init__(self, pool: SmtpPool, sender: Address, templates: Templates) -> None:
        self._pool = pool
        self._sender = sender
        self._templates = templates

    def recipient(self, notification: Notification) -> str:
        """See `Channel`."""
        if notification.recipient.email is None:
            raise PermanentError("INVALID_PAYLOAD", "recipient.email is missing")
        return notification.recipient.email

    def shown(self, recipient: str) -> str:
        """See `Channel`."""
        return "***" + recipient[recipient.rfind("@") :]

    async def compose(self, job: Job[Notification]) -> Envelope:
        """See `Channel`."""
        recipient = self.recipient(job.payload)
        words = self._words(job.payload.content)
        return envelope(job.payload, words, self._sender, recipient, job.created_at)

    def routes(self, message: Envelope) -> Sequence[Route[Envelope]]:  # noqa: ARG002  all leave the same way
        """See `Channel`."""
        return (Route("smtp", "smtp", self.send),)

    def _words(self, content: Content) -> Rendered:
        if content.attachments:
            raise PermanentError("ATTACHMENTS_UNAVAILABLE", "this version cannot send content.attachments: send a link")
        if content.template_id is not None:
            return self._templates.render(content.template_id, content.template_data or {})
        if content.body is None:
            raise PermanentError("INVALID_PAYLOAD", "content.body is missing, and so is content.templateId")
        return Rendered(content.subject or "", content.body, content.html_body or "")

    async def send(self, message: Envelope) -> Accepted:
        """See `Channel`."""
        try:
            answer = await self._pool.transmit(message)
        except SmtpFailure as failure:
            raise NotAccepted(classify(failure), masked(failure.text, message.recipient)) from failure
        return Accepted(queue_id(answer) or message.message_id)


def queue_id(answer: str) -> str | None:
    """Return the server's own name for an accepted message, where its 250 tells one as Postfix or Exim do."""
    found = _QUEUE_ID.search(answer)
    return found[1] if found else None


def relay(settings: NotificationsSettings) -> Relay:
    """Return the mail server the settings name; reads SMTP_CA_FILE. Raises OSError when that file is gone."""
    return Relay(
        host=settings.smtp_host,
        port=settings.smtp_port,
        tls=settings.tls,
        tls_context=None if settings.tls == "off" else ssl.create_default_context(cafile=settings.smtp_ca_file),
        username=settings.smtp_user,
        password=settings.smtp_password.get_secret_value() if settings.smtp_password else "",
    )


@asynccontextmanager
async def email_channel(settings: NotificationsSettings) -> AsyncIterator[EmailChannel]:
    """Open the channel; connections are made when the first message needs one and closed on leaving."""
    pool = SmtpPool(relay(settings))
    try:
        yield EmailChannel(pool, settings.sender(), Templates())
    finally:
        await pool.close()
