"""What an SMS company is asked and answers, as Twilio's REST API and MessageBird's write it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiohttp import web
from twilio.request_validator import HMAC_SHA256, RequestValidator

if TYPE_CHECKING:
    from collections.abc import Mapping

# https://www.twilio.com/docs/iam/test-credentials
MAGIC_RECIPIENTS = {
    "+15005550001": 21211,
    "+15005550002": 21612,
    "+15005550003": 21408,
    "+15005550004": 21610,
    "+15005550009": 21614,
}
MAGIC_SENDERS = {"+15005550001": 21212, "+15005550007": 21606, "+15005550008": 21611}


class Action(Enum):
    """What may become of a request instead of an answer."""

    HANG = "never answer, keep nothing"
    CLOSE = "close the connection, keep nothing"
    ACCEPT_AND_HANG = "keep the message, never say so"
    ACCEPT_AND_CLOSE = "keep the message, close the connection without saying so"
    ACCEPT_AND_FAIL = "keep the message, answer 500"
    MUMBLE = "answer 200 with a page that is no JSON, keep nothing"


@dataclass(frozen=True)
class Answer:
    """An error: the HTTP status, the provider's own code (none: a body that is not JSON), its words."""

    status: int
    code: int | None = None
    words: str = "no"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReceivedSms:
    """A message the company took: every field as it came, `status` as it was last reported."""

    sid: str
    to: str
    sender: str
    body: str
    status_url: str
    received_at: datetime
    reference: str = ""
    status: str = "queued"


def asked_of_twilio(form: Mapping[str, Any]) -> ReceivedSms:
    """Read an order to Twilio."""
    return ReceivedSms(
        "SM" + uuid4().hex,
        str(form.get("To", "")),
        str(form.get("From") or form.get("MessagingServiceSid") or ""),
        str(form.get("Body", "")),
        str(form.get("StatusCallback", "")),
        datetime.now(UTC),
    )


def asked_of_messagebird(order: Mapping[str, Any]) -> ReceivedSms:
    """Read an order to MessageBird."""
    return ReceivedSms(
        uuid4().hex,
        "+" + order["recipients"][0],
        order["originator"],
        order["body"],
        order.get("reportUrl", ""),
        datetime.now(UTC),
        order.get("reference", ""),
    )


def magic_refusal(sms: ReceivedSms) -> Answer | None:
    """Refuse a magic number for the reason it stands for."""
    code = MAGIC_RECIPIENTS.get(sms.to) or MAGIC_SENDERS.get(sms.sender)
    return Answer(400, code, f"The number {sms.to} is a magic one") if code else None


def as_twilio(sms: ReceivedSms) -> dict[str, Any]:
    """Write a message as Twilio does."""
    service = sms.sender if sms.sender.startswith("MG") else None
    moment = format_datetime(sms.received_at)
    return {
        "sid": sms.sid,
        "to": sms.to,
        "from": None if service else sms.sender,
        "messaging_service_sid": service,
        "body": sms.body,
        "status": sms.status,
        "direction": "outbound-api",
        "date_created": moment,
        "date_sent": None if sms.status == "queued" else moment,
        "date_updated": moment,
        "error_code": None,
        "error_message": None,
        "api_version": "2010-04-01",
    }


def twilio_error(answer: Answer) -> web.Response:
    """Write an error as Twilio does."""
    told = {"code": answer.code, "message": answer.words, "more_info": "", "status": answer.status}
    return _error(answer, told)


def messagebird_error(answer: Answer) -> web.Response:
    """Write an error as MessageBird does; words like `originator: no` are about that parameter."""
    parameter, _, rest = answer.words.rpartition(": ")
    return _error(answer, {"errors": [{"code": answer.code, "description": rest, "parameter": parameter or None}]})


def _error(answer: Answer, told: dict[str, Any]) -> web.Response:
    text = "oops" if answer.code is None else json.dumps(told)
    return web.Response(status=answer.status, text=text, headers=answer.headers, content_type="application/json")


def as_messagebird(sms: ReceivedSms) -> dict[str, Any]:
    """Write a message as MessageBird does."""
    return {
        "id": sms.sid,
        "originator": sms.sender,
        "body": sms.body,
        "reference": sms.reference,
        "createdDatetime": sms.received_at.isoformat(),
        "recipients": {"totalCount": 1, "items": [{"recipient": int(sms.to), "status": "sent"}]},
    }


def signed(url: str, parameters: dict[str, str], secret: str, *, shared: bool = False) -> dict[str, str]:
    """Return the headers with which Twilio signs a callback; `shared`: with a shared key, as it can since 2026."""
    algorithm = HMAC_SHA256 if shared else None
    headers = {"X-Twilio-Signature": RequestValidator(secret).compute_signature(url, parameters, algorithm)}
    return headers | ({"X-Twilio-Webhooks-Signature-Settings": f"key=k1,algorithm={algorithm}"} if shared else {})
