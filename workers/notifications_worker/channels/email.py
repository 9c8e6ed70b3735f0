"""E-mail over SMTP, one recipient a message."""

from __future__ import annotations

import asyncio
import re
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from notifications_worker.channel import Accepted, ChannelKind, NotAccepted, Reply, Route
from notifications_worker.channels.attachments import Attachments, MailLimits
from notifications_worker.channels.email_message import Letter, envelope
from notifications_worker.channels.email_settings import EmailSettings
from notifications_worker.channels.smtp_pool import PoolLimits, SmtpPool
from notifications_worker.channels.smtp_replies import SmtpFailure, classify, enhanced_code, masked
from notifications_worker.channels.smtp_session import Relay
from notifications_worker.templates import Rendered, Templates
from notifications_worker.unsubscribe_links import Subscription
from worker_runtime.outcome import PermanentError
from worker_runtime.storage import ObjectStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from email.headerregistry import Address

    from notifications_worker.channels.attachments import AttachedFile
    from notifications_worker.channels.dkim import DkimSigner
    from notifications_worker.channels.smtp_pool import Transmitted
    from notifications_worker.channels.smtp_session import Envelope
    from notifications_worker.notification import Content, Notification
    from notifications_worker.unsubscribe_links import UnsubscribeLinks
    from worker_runtime.job import Job

__all__ = ["EmailChannel", "Stationery", "email_channel"]

PROVIDER = "smtp"
WRITERS = 2
_QUEUE_ID = re.compile(r"(?:\bqueued as |\bid=)([\w.-]{4,100})")


@dataclass(frozen=True, slots=True)
class Stationery:
    """What every mail of this worker is written with. Without `links` there is no bulk mail."""

    sender: Address
    templates: Templates
    attachments: Attachments
    limits: MailLimits
    signer: DkimSigner | None = None
    links: UnsubscribeLinks | None = None


class EmailChannel:
    """See `Channel`."""

    name: ClassVar[str] = "EMAIL"
    keeps_payload: ClassVar[bool] = False
    providers: tuple[str, ...] = (PROVIDER,)
    circuits: tuple[str, ...] = (PROVIDER,)

    def __init__(self, pool: SmtpPool, stationery: Stationery) -> None:
        self._pool = pool
        self._stationery = stationery
        # Templates, base64 of megabytes and RSA: not while the event loop waits. Few threads, for they share one lock.
        self._writers = ThreadPoolExecutor(WRITERS, "mail")

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
        files = await self._stationery.attachments.fetched(job.payload.content.attachments or ())
        return await asyncio.get_running_loop().run_in_executor(self._writers, self._written, job, files)

    def _written(self, job: Job[Notification], files: Sequence[AttachedFile]) -> Envelope:
        recipient = self.recipient(job.payload)
        words, link = self._words(job.payload.content), self._unsubscribe_url(job.payload, recipient)
        letter = Letter(job.payload, recipient, job.created_at, words, files, link)
        return self._small_enough(envelope(letter, self._stationery.sender, self._stationery.signer))

    def _words(self, content: Content) -> Rendered:
        if content.template_id is not None:
            return self._stationery.templates.render(content.template_id, content.template_data or {})
        if content.body is None:
            raise PermanentError("INVALID_PAYLOAD", "content.body is missing, and so is content.templateId")
        return Rendered(content.subject or "", content.body, content.html_body or "")

    def _unsubscribe_url(self, notification: Notification, recipient: str) -> str | None:
        if not notification.is_bulk:
            return None
        if self._stationery.links is None:
            sentence = (
                "mail of category marketing needs a link for unsubscribing: set UNSUBSCRIBE_SECRET, PUBLIC_BASE_URL"
            )
            raise PermanentError("UNSUBSCRIBE_UNAVAILABLE", sentence)
        return self._stationery.links.url(Subscription(notification.tenant_id, recipient))

    def _small_enough(self, message: Envelope) -> Envelope:
        size, limit = len(message.content), self._stationery.limits.message
        if size > limit:
            raise PermanentError("MESSAGE_TOO_LARGE", f"the mail has {size} bytes; EMAIL_MAX_MESSAGE_BYTES is {limit}")
        return message

    def routes(self, message: Envelope) -> Sequence[Route[Envelope]]:  # noqa: ARG002  all leave the same way
        """See `Channel`."""
        return (Route(PROVIDER, PROVIDER, self.send),)

    async def send(self, message: Envelope) -> Accepted:
        """See `Route`."""
        try:
            answer = await self._pool.transmit(message)
        except SmtpFailure as failure:
            reply = refusal(failure, message)
            raise NotAccepted(classify(failure), reply.text, reply) from failure
        return Accepted(queue_id(answer.text) or message.message_id, acceptance(answer, message))

    def close(self) -> None:
        """Write no more; what is being written is waited for by nobody."""
        self._writers.shutdown(wait=False, cancel_futures=True)


def queue_id(answer: str) -> str | None:
    """Return the server's own name for an accepted message, where its 250 tells one as Postfix or Exim do."""
    found = _QUEUE_ID.search(answer)
    return found[1] if found else None


def acceptance(answer: Transmitted, message: Envelope) -> Reply:
    """Return what the server said when it took a message."""
    code = enhanced_code(answer.code, answer.text) or None
    return Reply(answer.code, code, masked(answer.text, message.recipient), answer.remote, message.signed_by)


def refusal(failure: SmtpFailure, message: Envelope) -> Reply:
    """Return what the server said instead of taking it, or what went wrong."""
    said = masked(failure.text, message.recipient) or (failure.sentence() if failure.fault else "")
    return Reply(failure.code, failure.enhanced or None, said, failure.remote, message.signed_by)


def relay(settings: EmailSettings) -> Relay:
    """Return the mail server the settings name; reads SMTP_CA_FILE. Raises OSError when that file is gone."""
    return Relay(
        host=settings.smtp_host,
        port=settings.smtp_port,
        tls=settings.tls,
        tls_context=None if settings.tls == "off" else ssl.create_default_context(cafile=settings.smtp_ca_file),
        username=settings.smtp_user,
        password=settings.smtp_password.get_secret_value() if settings.smtp_password else "",
    )


def stationery(settings: EmailSettings, store: ObjectStore) -> Stationery:
    """Return what the settings say mail is written with."""
    limits = MailLimits(settings.email_max_attachment_bytes, settings.email_max_message_bytes)
    return Stationery(
        settings.sender(),
        settings.templates(),
        Attachments(store, limits),
        limits,
        settings.signer(),
        settings.unsubscribe_links(),
    )


def _limits(settings: EmailSettings) -> PoolLimits:
    return PoolLimits(settings.smtp_pool_size, messages_per_connection=settings.smtp_messages_per_connection)


@asynccontextmanager
async def email_channel(settings: EmailSettings) -> AsyncIterator[EmailChannel]:
    """Open the channel; connections are made when the first message needs one and closed on leaving."""
    store = ObjectStore(settings.storage_url)
    pool = SmtpPool(relay(settings), _limits(settings))
    channel = EmailChannel(pool, stationery(settings, store))
    try:
        yield channel
    finally:
        await pool.close()
        channel.close()
        store.close()


KIND = ChannelKind(EmailSettings, email_channel)
