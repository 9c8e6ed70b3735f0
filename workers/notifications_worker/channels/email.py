"""E-mail over SMTP: one recipient a message, the same bytes whenever the same notification is sent again."""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime
from typing import TYPE_CHECKING, ClassVar

from notifications_worker.channel import Accepted, ChannelName, NotAccepted
from notifications_worker.channels.smtp_pool import SmtpPool
from notifications_worker.channels.smtp_replies import SmtpFailure, classify, masked
from notifications_worker.channels.smtp_session import Envelope, Relay
from notifications_worker.templates import Rendered, Templates
from worker_runtime.outcome import PermanentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from email.headerregistry import Address

    from notifications_worker.notification import Content, Notification
    from notifications_worker.settings import NotificationsSettings

__all__ = ["EmailChannel", "email_channel"]

NOTIFICATION_HEADER = "X-IntelliFlow-Notification-Id"
IDENTIFIERS = {"Message-ID", NOTIFICATION_HEADER}
LONGEST_PLAIN_IDENTIFIER = 900
_CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")
_QUEUE_ID = re.compile(r"(?:\bqueued as |\bid=)([\w.-]{4,100})")


class _Policy(EmailPolicy):
    """Writes identifiers on one line as they are: Python would break a long one, or encode it, past all searching."""

    def fold_binary(self, name: str, value: str) -> bytes:
        if name in IDENTIFIERS and value.isascii() and len(value) <= LONGEST_PLAIN_IDENTIFIER:
            return f"{name}: {value}\r\n".encode("ascii")
        return super().fold_binary(name, value)


# Seven bits, so that no server needs 8BITMIME; whatever an address needs, `Envelope.utf8` says.
_SEVEN_BIT = _Policy(linesep="\r\n", cte_type="7bit")


class EmailChannel:
    """See `Channel`."""

    name: ClassVar[ChannelName] = ChannelName.EMAIL
    provider = "smtp"

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

    def compose(self, notification: Notification, created_at: float) -> Envelope:
        """See `Channel`."""
        recipient, sender = self.recipient(notification), self._sender.addr_spec
        utf8 = not (recipient + sender).isascii()
        try:
            message = self._message(notification, recipient, created_at)
            content = message.as_bytes(policy=_SEVEN_BIT.clone(utf8=utf8))
        except ValueError as error:  # Half a surrogate pair, for one, which JSON can spell and no charset can.
            raise PermanentError("INVALID_PAYLOAD", "content holds what cannot be written in an e-mail") from error
        with_crlf = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
        return Envelope(sender, recipient, with_crlf, message["Message-ID"], utf8)

    def _message(self, notification: Notification, recipient: str, created_at: float) -> EmailMessage:
        words = self._words(notification.content)
        message = EmailMessage(policy=_SEVEN_BIT)
        message["From"] = self._sender
        message["To"] = recipient
        if words.subject:
            message["Subject"] = _header("content.subject", words.subject)
        message["Date"] = format_datetime(datetime.fromtimestamp(created_at, UTC))
        message["Message-ID"] = message_id(notification, recipient, self._sender.domain)
        message[NOTIFICATION_HEADER] = _header("notificationId", notification.notification_id)
        message.set_content(words.text)
        if words.html:
            message.add_alternative(words.html, subtype="html")
            _fix_boundary(message)
        return message

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


def message_id(notification: Notification, recipient: str, domain: str) -> str:
    """Return the Message-ID of this notification to this recipient: the same one however often it is sent."""
    identity = f"{notification.tenant_id}\0{notification.notification_id}\0{recipient}"
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).digest()
    return f"<{base64.b32encode(digest).decode().rstrip('=').lower()}@{domain}>"


def queue_id(answer: str) -> str | None:
    """Return the server's own name for an accepted message, where its 250 tells one as Postfix or Exim do."""
    found = _QUEUE_ID.search(answer)
    return found[1] if found else None


def _header(field: str, value: str) -> str:
    if _CONTROL_CHARACTERS.search(value):
        raise PermanentError("INVALID_PAYLOAD", f"{field} holds a line break or another control character")
    return value


def _fix_boundary(message: EmailMessage) -> None:
    """Derive the separator of the parts from the Message-ID; Python's own is random, and a resend is the same bytes."""
    message.set_boundary("=_" + message["Message-ID"][1:33])


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
