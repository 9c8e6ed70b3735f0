"""SMS through Twilio's own client, with a transport of ours below it.

What the client's own transport would do otherwise: wait without a limit, log every address and number, and keep an
answer's Retry-After to itself. Twilio has no idempotency key; `look_up` finds by number and text what an unanswered
request may have left there.
"""

from __future__ import annotations

import base64
import json
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from twilio.base import values
from twilio.base.exceptions import TwilioException
from twilio.http.response import Response
from twilio.rest import Client

from notifications_worker.channel import Accepted, Reply
from notifications_worker.channels.sms_replies import FAILURES, Refusal, failed, not_understood, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from notifications_worker.channels.sms_message import SmsMessage
    from worker_runtime.clock import Clock
    from worker_runtime.egress import EgressClient, EgressReply

__all__ = ["TwilioSms"]

TIMEOUT_SECONDS = 30.0
LOOKED_THROUGH = 20
# Ours may be ahead of Twilio's, which tells whole seconds.
CLOCK_SKEW_SECONDS = 10.0
# What Twilio puts before every text of a trial account.
TRIAL_PREFIX = "Sent from your Twilio trial account - "
NEVER_LEFT = frozenset({"failed", "undelivered", "canceled"})
# What the client raises for an answer that is JSON of another shape, or none.
UNREADABLE = (ValueError, TypeError, AttributeError, KeyError)

answered: ContextVar[EgressReply] = ContextVar("answered")


class TwilioSms:
    """See `SmsProvider`. `status_url` tells where Twilio should report what becomes of a message."""

    name = "twilio"

    def __init__(
        self,
        http: EgressClient,
        *,
        base_url: str,
        account_sid: str,
        auth_token: str,
        sender: str,
        clock: Clock,
        status_url: Callable[[SmsMessage], str | None],
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        # An empty environment would be taken for none, and the process's own TWILIO_EDGE or TWILIO_REGION rewrite
        # the address.
        client = Client(
            account_sid, auth_token, http_client=_Transport(http, timeout_seconds), environment={"TWILIO": "unused"}
        )
        client.api.base_url = base_url
        self._messages = client.api.v2010.account.messages
        self._sender = sender
        self._clock = clock
        self._status_url = status_url

    async def send(self, message: SmsMessage) -> Accepted:
        """See `SmsProvider`."""
        try:
            sent = await self._messages.create_async(
                to=message.to,
                body=message.body,
                status_callback=self._status_url(message) or values.unset,
                **self._from,
            )
        except TwilioException:
            raise refused(refusal(answered.get()), message, self._clock.now()) from None  # Its text holds the number.
        except FAILURES as failure:
            raise failed(self.name, failure) from failure
        except UNREADABLE:
            raise not_understood(self.name, answered.get()) from None
        return self._accepted(sent, message)

    async def look_up(self, message: SmsMessage, since: float) -> Accepted | None:
        """See `SmsProvider`. Two equal texts to one number, both unanswered, are taken for one."""
        try:
            # Without a DateSent: what still waits at Twilio has none. The newest come first.
            found = await self._messages.list_async(to=message.to, limit=LOOKED_THROUGH, page_size=LOOKED_THROUGH)
        except TwilioException:
            raise refused(refusal(answered.get()), message, self._clock.now()) from None
        except FAILURES as failure:
            raise failed(self.name, failure) from failure
        except UNREADABLE:
            raise not_understood(self.name, answered.get()) from None
        return self._same(found, message, since)

    @property
    def _from(self) -> dict[str, str]:
        return {"messaging_service_sid": self._sender} if self._is_service else {"from_": self._sender}

    @property
    def _is_service(self) -> bool:
        return self._sender.startswith("MG") and len(self._sender) == 34  # noqa: PLR2004  as every SID

    def _accepted(self, sent: Any, message: SmsMessage) -> Accepted:
        reply = answered.get()
        if sent.status in NEVER_LEFT:
            raise refused(_refusal(reply, sent.error_code, str(sent.error_message or "")), message, self._clock.now())
        if not sent.sid or not isinstance(sent.sid, str):
            raise not_understood(self.name, reply)
        return Accepted(sent.sid, Reply(reply.status, text=str(sent.status), remote=reply.remote))

    def _same(self, found: Iterable[Any], message: SmsMessage, since: float) -> Accepted | None:
        earliest = datetime.fromtimestamp(since - CLOCK_SKEW_SECONDS, UTC)
        for one in found:
            if self._is(one, message) and isinstance(one.date_created, datetime) and one.date_created >= earliest:
                return Accepted(one.sid, Reply(text=f"found when looked up: {one.status}"))
        return None

    def _is(self, one: Any, message: SmsMessage) -> bool:
        sender = one.messaging_service_sid if self._is_service else one.from_
        return (
            one.to == message.to
            and sender == self._sender
            and one.body in {message.body, TRIAL_PREFIX + message.body}
            and str(one.direction).startswith("outbound")
            and one.status not in NEVER_LEFT
        )


class _Transport:
    """What Twilio's client sends through: it calls `request` by its name, and asks `is_async`."""

    is_async = True

    def __init__(self, http: EgressClient, timeout_seconds: float) -> None:
        self._http = http
        self._timeout_seconds = timeout_seconds

    async def request(
        self,
        method: str,
        url: str,
        params: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        **_: Any,
    ) -> Response:
        """Send once. Raises what `EgressClient` does; the answer is also kept in `answered`, headers and all."""
        whole = {**(headers or {}), "Authorization": basic(*(auth or ("", "")))}
        if method == "POST":
            body = urlencode(data or {}).encode()
            reply = await self._http.post(url, body, whole, self._timeout_seconds)
        else:
            query = f"?{urlencode(params)}" if params else ""
            reply = await self._http.get(url + query, whole, self._timeout_seconds)
        answered.set(reply)
        return Response(reply.status, reply.body.decode("utf-8", "replace"), reply.headers)


def basic(name: str, password: str) -> str:
    """Return the header that logs in."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def refusal(reply: EgressReply) -> Refusal:
    """Read an error in either of the two shapes Twilio has: `code, message`, or RFC 9457's with a `code`."""
    try:
        told = json.loads(reply.body)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return _refusal(reply, None, "")
    words = told.get("message") or f"{told.get('title', '')} {told.get('detail', '')}"
    return _refusal(reply, told.get("code"), str(words))


def _refusal(reply: EgressReply, code: Any, words: str) -> Refusal:
    codes = (str(code),) if isinstance(code, int) else ()
    return Refusal(TwilioSms.name, reply.status, codes, words, reply.headers.get("Retry-After"), reply.remote)
