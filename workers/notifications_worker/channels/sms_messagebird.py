"""SMS through MessageBird's REST API, which Bird still serves: JSON over HTTPS, a key in a header.

`reference` comes back in lists and reports. It does not keep a message from being sent twice, but finds for sure, in
`look_up`, what an unanswered request has left there.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from notifications_worker.channel import Accepted, Reply
from notifications_worker.channels.sms_replies import FAILURES, Refusal, failed, not_understood, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from notifications_worker.channels.sms_message import SmsMessage
    from worker_runtime.clock import Clock
    from worker_runtime.egress import EgressClient, EgressReply

__all__ = ["MessageBirdSms"]

TIMEOUT_SECONDS = 30.0
LOOKED_THROUGH = 20
CLOCK_SKEW_SECONDS = 60.0


class MessageBirdSms:
    """See `SmsProvider`. `status_url` tells where MessageBird should report what becomes of a message."""

    name = "messagebird"

    def __init__(
        self,
        http: EgressClient,
        *,
        base_url: str,
        access_key: str,
        sender: str,
        clock: Clock,
        status_url: Callable[[SmsMessage], str | None],
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._http = http
        self._messages = base_url.rstrip("/") + "/messages"
        self._headers = {"Authorization": f"AccessKey {access_key}", "Content-Type": "application/json"}
        self._sender = sender
        self._clock = clock
        self._status_url = status_url
        self._timeout_seconds = timeout_seconds

    async def send(self, message: SmsMessage) -> Accepted:
        """See `SmsProvider`."""
        order = json.dumps(self._order(message)).encode()
        try:
            reply = await self._http.post(self._messages, order, self._headers, self._timeout_seconds)
        except FAILURES as failure:
            raise failed(self.name, failure) from failure
        told = self._understood(reply, message)
        if not isinstance(told.get("id"), str):
            raise not_understood(self.name, reply)
        return Accepted(told["id"], Reply(reply.status, remote=reply.remote))

    async def look_up(self, message: SmsMessage, since: float) -> Accepted | None:
        """See `SmsProvider`."""
        earliest = datetime.fromtimestamp(since - CLOCK_SKEW_SECONDS, UTC).isoformat(timespec="seconds")
        query = urlencode({"recipient": digits(message.to), "from": earliest, "limit": LOOKED_THROUGH})
        try:
            reply = await self._http.get(f"{self._messages}?{query}", self._headers, self._timeout_seconds)
        except FAILURES as failure:
            raise failed(self.name, failure) from failure
        return self._same(self._understood(reply, message), reply, message)

    def _order(self, message: SmsMessage) -> dict[str, Any]:
        order = {
            "originator": self._sender,
            "recipients": [digits(message.to)],
            "body": message.body,
            "datacoding": "auto",
            "reference": message.reference,
        }
        url = self._status_url(message)
        return order | {"reportUrl": url} if url else order

    def _understood(self, reply: EgressReply, message: SmsMessage) -> dict[str, Any]:
        told = parsed(reply)
        if not reply.status // 100 == 2:  # noqa: PLR2004  any success
            raise refused(refusal(reply, told), message, self._clock.now())
        if told is None:
            raise not_understood(self.name, reply)
        return told

    def _same(self, told: dict[str, Any], reply: EgressReply, message: SmsMessage) -> Accepted | None:
        items = told.get("items") or []
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise not_understood(self.name, reply)
        for item in items:
            if item.get("reference") == message.reference and isinstance(item.get("id"), str):
                return Accepted(item["id"], Reply(reply.status, text="found when looked up", remote=reply.remote))
        return None


def digits(number: str) -> str:
    """Return a number in E.164 as MessageBird writes it."""
    return number.removeprefix("+")


def parsed(reply: EgressReply) -> dict[str, Any] | None:
    """Return the JSON object that was answered, if it is one."""
    try:
        told = json.loads(reply.body)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def refusal(reply: EgressReply, told: dict[str, Any] | None) -> Refusal:
    """Read the first of the errors: `{"errors": [{"code": 10, "parameter": "originator", "description": "..."}]}`."""
    errors = (told or {}).get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    code, parameter = first.get("code"), first.get("parameter")
    codes = () if code is None else (f"{code} {parameter}", str(code))
    words = str(first.get("description") or "")
    return Refusal(MessageBirdSms.name, reply.status, codes, words, reply.headers.get("Retry-After"), reply.remote)
