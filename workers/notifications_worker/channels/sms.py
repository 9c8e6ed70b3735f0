"""SMS, one number a message, through one provider or, when that one surely has not got it, another."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

from notifications_worker.callbacks.about import PARAMETER, About
from notifications_worker.channel import ChannelKind, Route
from notifications_worker.channels.sms_message import SmsMessage
from notifications_worker.channels.sms_messagebird import MessageBirdSms
from notifications_worker.channels.sms_mock import MockSms
from notifications_worker.channels.sms_number import e164, shown
from notifications_worker.channels.sms_segments import segment
from notifications_worker.channels.sms_settings import SmsSettings
from notifications_worker.templates import Templates
from worker_runtime.clock import SystemClock
from worker_runtime.egress import trusted_egress
from worker_runtime.outcome import PermanentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from pydantic import SecretStr

    from notifications_worker.channels.sms_provider import SmsProvider
    from notifications_worker.channels.sms_settings import SmsProviderName
    from notifications_worker.notification import Content, Notification
    from worker_runtime.egress import EgressClient
    from worker_runtime.job import Job

__all__ = ["SmsChannel", "sms_channel"]

# A list of messages is longer than what is kept of a webhook's answer.
KEPT_BYTES = 262_144


class SmsChannel:
    """See `Channel`."""

    name: ClassVar[str] = "SMS"
    keeps_payload: ClassVar[bool] = False  # A text may be a code that opens an account.

    def __init__(
        self, providers: Sequence[SmsProvider], templates: Templates, *, max_segments: int, require_assigned: bool
    ) -> None:
        self.providers = self.circuits = tuple(provider.name for provider in providers)
        self._templates = templates
        self._max_segments = max_segments
        self._require_assigned = require_assigned
        self._routes = tuple(
            Route(provider.name, provider.name, provider.send, look_up=provider.look_up) for provider in providers
        )

    def recipient(self, notification: Notification) -> str:
        """See `Channel`."""
        return e164(notification.recipient.phone, assigned=self._require_assigned)

    def shown(self, recipient: str) -> str:
        """See `Channel`."""
        return shown(recipient)

    async def compose(self, job: Job[Notification]) -> SmsMessage:
        """See `Channel`."""
        notification = job.payload
        to, body = self.recipient(notification), self._words(notification.content)
        parts = len(segment(body).parts)
        if parts > self._max_segments:
            raise PermanentError(
                "INVALID_PAYLOAD",
                f"content.body takes {parts} SMS, and at most {self._max_segments} are sent (SMS_MAX_SEGMENTS)",
            )
        return SmsMessage(to, body, parts, notification.tenant_id, notification.notification_id)

    def routes(self, message: SmsMessage) -> Sequence[Route[SmsMessage]]:
        """See `Channel`."""
        del message
        return self._routes

    def _words(self, content: Content) -> str:
        if content.attachments:
            raise PermanentError("INVALID_PAYLOAD", "content.attachments cannot travel by SMS: send a link")
        text = self._text(content)
        if not text.strip():
            raise PermanentError("INVALID_PAYLOAD", "content.body is empty")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise PermanentError("INVALID_PAYLOAD", "content.body holds half of a surrogate pair") from None
        return text

    def _text(self, content: Content) -> str:
        if content.template_id is not None:
            # The line break that ends the file is not the message's: it could cost a part.
            return self._templates.render(content.template_id, content.template_data or {}).text.rstrip()
        if content.body is None:
            raise PermanentError("INVALID_PAYLOAD", "content.body is missing, and so is content.templateId")
        return content.body


@asynccontextmanager
async def sms_channel(settings: SmsSettings) -> AsyncIterator[SmsChannel]:
    """Open the channel; connections are made when the first message needs one and closed on leaving."""
    async with trusted_egress(kept_bytes=KEPT_BYTES) as http:
        yield SmsChannel(
            # In a thread: to load Twilio's client takes half a second, in which the event loop should turn.
            [await asyncio.to_thread(provider, name, settings, http) for name in settings.sms_providers],
            Templates(),
            max_segments=settings.sms_max_segments,
            require_assigned=settings.sms_require_assigned_number,
        )


def provider(name: SmsProviderName, settings: SmsSettings, http: EgressClient) -> SmsProvider:
    """Return the account that the settings name."""
    match name:
        case "twilio":
            return _twilio(settings, http)
        case "messagebird":
            return MessageBirdSms(
                http,
                base_url=settings.messagebird_api_base_url,
                access_key=_revealed(settings.messagebird_access_key),
                sender=settings.sms_sender(name),
                clock=SystemClock(),
                # Whose reports nobody could check are not asked for.
                status_url=status_url(settings if settings.messagebird_signing_key else None, name),
            )
        case "mock":
            return MockSms()


def _twilio(settings: SmsSettings, http: EgressClient) -> SmsProvider:
    # 15 MB, for those who use it.
    from notifications_worker.channels.sms_twilio import TwilioSms  # noqa: PLC0415

    return TwilioSms(
        http,
        base_url=settings.twilio_api_base_url,
        account_sid=settings.twilio_account_sid or "",
        auth_token=_revealed(settings.twilio_auth_token),
        sender=settings.sms_sender("twilio"),
        clock=SystemClock(),
        status_url=status_url(settings, "twilio"),
    )


def status_url(settings: SmsSettings | None, provider: str) -> Callable[[SmsMessage], str | None]:
    """Return what tells the address a provider should call about a message; none when nobody listens there."""
    base = settings.callback_url(f"/callbacks/{provider}/status") if settings else None

    def address(message: SmsMessage) -> str | None:
        about = About(message.tenant_id, message.notification_id).encoded()
        return f"{base}?{PARAMETER}={about}" if base else None

    return address


def _revealed(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


KIND = ChannelKind(SmsSettings, sms_channel)
