"""Slack: a message by a bot, over `chat.postMessage`. `recipient.id` is a channel (C...), a person (U...) or a name."""

from __future__ import annotations

import json
import re
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, SecretStr, model_validator

from notifications_worker.channel import Accepted, ChannelKind, Circuit, NotAccepted, Reply, Route, Verdict
from notifications_worker.channels.email_settings import TemplateSettings
from worker_runtime.egress import EgressRefused, NoAnswer, NotReached, trusted_egress
from worker_runtime.egress.retry_after import retry_after
from worker_runtime.outcome import DeadLetter, Defer, PermanentError, Retry
from worker_runtime.settings.kinds import WebAddress  # noqa: TC001  pydantic reads annotations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notifications_worker.notification import Content, Notification
    from notifications_worker.templates import Templates
    from worker_runtime.egress import EgressClient, EgressReply
    from worker_runtime.job import Job

__all__ = ["KIND", "SlackChannel"]

PROVIDER = "slack"
TIMEOUT_SECONDS = 15.0
PAUSE_SECONDS = 5.0
THROTTLED, SERVER_ERROR = 429, 500
THROTTLED_FLOOR_SECONDS = 30.0
# Slack cuts what is longer.
MOST_CHARACTERS = 40_000
ADDRESSEE = re.compile(r"[CDGU][A-Z0-9]{2,30}|#[^\s#]{1,80}")
# https://docs.slack.dev/reference/methods/chat.postMessage, "Errors": ours to mend, or Slack's own; all others are the
# message's or its recipient's.
OURS = frozenset({
    "access_denied", "account_inactive", "invalid_auth", "missing_scope", "no_permission", "not_allowed_token_type",
    "not_authed", "org_login_required", "team_access_not_granted", "token_expired", "token_revoked",
})  # fmt: skip
SLACKS = frozenset({"fatal_error", "internal_error", "ratelimited", "request_timeout", "service_unavailable"})


class SlackSettings(TemplateSettings):
    """Slack."""

    enable_slack: bool = Field(default=False, description="deliver to Slack; otherwise its queue is left alone")
    slack_bot_token: SecretStr | None = Field(None, description="the bot's token (xoxb-...), with the scope chat:write")
    slack_api_base_url: WebAddress = Field(
        "https://slack.com/api", description="Slack's address, for tests and proxies"
    )

    @model_validator(mode="after")
    def _has_a_token(self) -> Self:
        if self.enable_slack and not self.slack_bot_token:
            raise ValueError("SLACK_BOT_TOKEN is not set, and ENABLE_SLACK=true needs it")
        return self


@dataclass(frozen=True, slots=True)
class SlackMessage:
    """What Slack is told."""

    channel: str
    text: str


class SlackChannel:
    """See `Channel`."""

    name: ClassVar[str] = "SLACK"
    keeps_payload: ClassVar[bool] = False
    providers: tuple[str, ...] = (PROVIDER,)
    circuits: tuple[str, ...] = (PROVIDER,)

    def __init__(self, http: EgressClient, templates: Templates, base_url: str, token: str) -> None:
        self._http = http
        self._templates = templates
        self._url = base_url.rstrip("/") + "/chat.postMessage"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json; charset=utf-8"}

    def recipient(self, notification: Notification) -> str:
        """See `Channel`."""
        found = notification.recipient.id
        if found is None or not ADDRESSEE.fullmatch(found):
            raise PermanentError("INVALID_PAYLOAD", "recipient.id is neither a Slack id such as C024BE91L nor a #name")
        return found

    def shown(self, recipient: str) -> str:
        """See `Channel`."""
        return recipient

    async def compose(self, job: Job[Notification]) -> SlackMessage:
        """See `Channel`."""
        text = self._text(job.payload.content)
        if not text.strip() or len(text) > MOST_CHARACTERS:
            raise PermanentError("INVALID_PAYLOAD", f"content.body is empty or over {MOST_CHARACTERS} characters")
        return SlackMessage(self.recipient(job.payload), text)

    def routes(self, message: SlackMessage) -> Sequence[Route[SlackMessage]]:
        """See `Channel`."""
        del message
        return (Route(PROVIDER, PROVIDER, self.send),)

    def _text(self, content: Content) -> str:
        if content.attachments:
            raise PermanentError("INVALID_PAYLOAD", "content.attachments cannot travel to Slack: send a link")
        if content.template_id is not None:
            return self._templates.render(content.template_id, content.template_data or {}).text.rstrip()
        return content.body or ""

    async def send(self, message: SlackMessage) -> Accepted:
        """See `Channel`."""
        body = json.dumps({"channel": message.channel, "text": message.text}).encode()
        try:
            reply = await self._http.post(self._url, body, self._headers, TIMEOUT_SECONDS)
        except (EgressRefused, NotReached) as failure:
            raise NotAccepted(outage(str(failure)), str(failure)) from failure
        except NoAnswer as failure:
            raise NotAccepted(unknown(str(failure)), str(failure)) from failure
        return understood(reply)


def understood(reply: EgressReply) -> Accepted:
    """Read Slack's answer: `{"ok": true, "ts": "..."}` or `{"ok": false, "error": "channel_not_found"}`."""
    told = parsed(reply.body)
    error = str(told.get("error") or "")[:100]
    shown = Reply(reply.status, error or None, remote=reply.remote)
    if told.get("ok") is True:
        return Accepted(f"{told.get('channel')}:{told.get('ts')}", shown)
    sentence = f"Slack answered {reply.status} {error}".rstrip()
    raise NotAccepted(verdict(reply, error, sentence), sentence, shown)


def parsed(body: bytes) -> dict[str, object]:
    """Return the JSON object that was answered, or an empty one."""
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def verdict(reply: EgressReply, error: str, sentence: str) -> Verdict:
    """Say what follows from a refusal."""
    if reply.status == THROTTLED or error == "ratelimited":
        floor = retry_after(reply.headers.get("Retry-After"), time.time()) or THROTTLED_FLOOR_SECONDS
        return Verdict(Retry("PROVIDER_BUSY", sentence, floor), Circuit.WORKS)
    if error in OURS:
        return Verdict(Defer("PROVIDER_MISCONFIGURED", sentence, PAUSE_SECONDS), Circuit.MISCONFIGURED)
    if error in SLACKS or reply.status >= SERVER_ERROR or not error:
        return unknown(sentence)
    return Verdict(DeadLetter("PROVIDER_REJECTED", sentence), Circuit.WORKS)


def outage(sentence: str) -> Verdict:
    """Slack could not be reached: nobody got the message."""
    return Verdict(Defer("PROVIDER_UNAVAILABLE", sentence, PAUSE_SECONDS), Circuit.FAILED)


def unknown(sentence: str) -> Verdict:
    """Slack may have it; it is sent again, for an attempt."""
    reason = f"{sentence}: it may or may not have been posted"
    return Verdict(Retry("DELIVERY_UNKNOWN", reason), Circuit.FAILED, unsent=False)


@asynccontextmanager
async def slack_channel(settings: SlackSettings) -> AsyncIterator[SlackChannel]:
    """Open the channel; a connection is made when the first message needs one and closed on leaving."""
    token = settings.slack_bot_token.get_secret_value() if settings.slack_bot_token else ""
    async with trusted_egress() as http:
        yield SlackChannel(http, settings.templates(), settings.slack_api_base_url, token)


KIND = ChannelKind(SlackSettings, slack_channel)
