"""What Twilio calls: what became of a message, and what people answer.

https://www.twilio.com/docs/usage/security#validating-requests: the signature covers the whole public address, query
included, and every field, so a proxy may change neither.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import structlog
from aiohttp import web
from twilio.request_validator import (
    SIGNATURE_HEADER,
    SIGNATURE_SETTINGS_HEADER,
    RequestValidator,
    get_signature_algorithm,
)

from notifications_worker.callbacks.about import PARAMETER, About
from notifications_worker.callbacks.effects import DeliveryState, StatusReport
from notifications_worker.channels.sms_errors import ErrorClass, known_error
from notifications_worker.channels.sms_number import E164, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from notifications_worker.callbacks.effects import DeliveryUpdates
    from notifications_worker.callbacks.opt_outs import OptOuts

__all__ = ["TwilioCallbacks"]

log = structlog.get_logger()

PROVIDER = "twilio"
STATES = {
    "accepted": DeliveryState.QUEUED,
    "scheduled": DeliveryState.QUEUED,
    "queued": DeliveryState.QUEUED,
    "sending": DeliveryState.SENDING,
    "sent": DeliveryState.SENT,
    "delivered": DeliveryState.DELIVERED,
    "read": DeliveryState.DELIVERED,
    "undelivered": DeliveryState.UNDELIVERED,
    "failed": DeliveryState.FAILED,
    "canceled": DeliveryState.FAILED,
}
# Twilio's own defaults. It acts on them too: what it would refuse is not tried.
STOP_WORDS = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"})
START_WORDS = frozenset({"START", "YES", "UNSTOP"})
NO_REPLY = "<?xml version='1.0' encoding='UTF-8'?><Response/>"


class TwilioCallbacks:
    """Signed with the account's token or, where Twilio names a key in a header, with that shared key."""

    def __init__(
        self,
        base_url: str,
        auth_token: str,
        shared_key: str | None,
        updates: DeliveryUpdates,
        opt_outs: OptOuts,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._by_token = RequestValidator(auth_token)
        self._by_shared_key = RequestValidator(shared_key) if shared_key else None
        self._updates = updates
        self._opt_outs = opt_outs

    async def status(self, request: web.Request) -> web.Response:
        """Take a status callback."""
        fields = await self._signed_fields(request)
        sid, state = fields.get("MessageSid"), STATES.get(fields.get("MessageStatus", ""))
        if not sid:
            raise web.HTTPBadRequest(text="MessageSid is missing")
        if state is None:
            log.info("sms_status_not_known", provider=PROVIDER, status=fields.get("MessageStatus"))
            return web.Response(status=204)
        about = About.decoded(request.query.get(PARAMETER, ""))
        report = StatusReport(PROVIDER, sid, state, fields.get("ErrorCode") or None, about)
        await self._updates.update(report)
        await self._suppress_who_opted_out(report, fields.get("To", ""))
        return web.Response(status=204)

    async def inbound(self, request: web.Request) -> web.Response:
        """Take a person's answer: STOP and its like, START and its like; any other is not ours to read."""
        fields = await self._signed_fields(request)
        wish, person = opt_out_type(fields), fields.get("From", "")
        if wish and E164.fullmatch(person):
            await (self._opt_outs.stop if wish == "STOP" else self._opt_outs.start)(person)
            log.info("sms_opt_out" if wish == "STOP" else "sms_opt_in", recipient=shown(person))
        return web.Response(text=NO_REPLY, content_type="text/xml")

    async def _suppress_who_opted_out(self, report: StatusReport, recipient: str) -> None:
        known = known_error(PROVIDER, report.code)
        if known and known.kind is ErrorClass.OPTED_OUT and E164.fullmatch(recipient):
            await self._opt_outs.stop(recipient)

    async def _signed_fields(self, request: web.Request) -> dict[str, str]:
        form = await request.post()
        if not self._is_signed(request, form):
            log.warning("callback_refused", provider=PROVIDER, path=request.path, why="the signature is not Twilio's")
            raise web.HTTPForbidden
        return {name: value for name, value in form.items() if isinstance(value, str)}

    def _is_signed(self, request: web.Request, form: Mapping[str, object]) -> bool:
        settings = request.headers.get(SIGNATURE_SETTINGS_HEADER, "")
        validator = self._by_shared_key if "key=" in settings else self._by_token
        offered = request.headers.get(SIGNATURE_HEADER)
        if validator is None or not offered:
            return False
        url = self._base_url + request.raw_path
        return bool(validator.validate(url, form, offered, get_signature_algorithm(settings)))


def opt_out_type(fields: Mapping[str, str]) -> str | None:
    """Return STOP or START where an answer says one: Twilio's own reading of it, else its only word."""
    if told := fields.get("OptOutType"):
        return told if told in {"STOP", "START"} else None
    word = re.sub(r"[\W_]+", "", fields.get("Body", "")).upper()
    if word in STOP_WORDS:
        return "STOP"
    return "START" if word in START_WORDS else None
