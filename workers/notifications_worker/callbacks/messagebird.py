"""What MessageBird calls: what became of a message.

https://developers.messagebird.com/api/#verifying-http-requests: a JSON Web Token, signed with a key of the account,
holds a hash of the whole public address and, of a body that there is, another.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

import jwt
import structlog
from aiohttp import web

from notifications_worker.callbacks.about import PARAMETER, About
from notifications_worker.callbacks.effects import DeliveryState, StatusReport

if TYPE_CHECKING:
    from notifications_worker.callbacks.effects import DeliveryUpdates

__all__ = ["SIGNATURE_HEADER", "MessageBirdCallbacks"]

log = structlog.get_logger()

PROVIDER = "messagebird"
SIGNATURE_HEADER = "MessageBird-Signature-JWT"
ALGORITHMS = ["HS256", "HS384", "HS512"]
CLOCK_SKEW_SECONDS = 5
STATES = {
    "scheduled": DeliveryState.QUEUED,
    "sent": DeliveryState.SENT,
    "buffered": DeliveryState.SENT,
    "delivered": DeliveryState.DELIVERED,
    "expired": DeliveryState.UNDELIVERED,
    "delivery_failed": DeliveryState.UNDELIVERED,
}


class MessageBirdCallbacks:
    """Status reports, which carry everything in the query."""

    def __init__(self, base_url: str, signing_key: str, updates: DeliveryUpdates) -> None:
        self._base_url = base_url.rstrip("/")
        self._signing_key = signing_key
        self._updates = updates

    async def status(self, request: web.Request) -> web.Response:
        """Take a status report."""
        if not self._is_signed(request, await request.read()):
            log.warning(
                "callback_refused", provider=PROVIDER, path=request.path, why="the signature is not MessageBird's"
            )
            raise web.HTTPForbidden
        message_id, state = request.query.get("id"), STATES.get(request.query.get("status", ""))
        if not message_id:
            raise web.HTTPBadRequest(text="id is missing")
        if state is None:
            log.info("sms_status_not_known", provider=PROVIDER, status=request.query.get("status"))
            return web.Response()
        about = About.decoded(request.query.get(PARAMETER, ""))
        code = request.query.get("statusErrorCode") or None
        await self._updates.update(StatusReport(PROVIDER, message_id, state, code, about))
        return web.Response()

    def _is_signed(self, request: web.Request, body: bytes) -> bool:
        try:
            claims = jwt.decode(
                request.headers.get(SIGNATURE_HEADER, ""),
                self._signing_key,
                algorithms=ALGORITHMS,
                issuer="MessageBird",
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": ["iss", "nbf", "exp", "url_hash"], "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            return False
        url = self._base_url + request.raw_path
        return is_hash_of(claims["url_hash"], url.encode()) and is_hash_of(claims.get("payload_hash"), body)


def is_hash_of(told: object, content: bytes) -> bool:
    """Tell whether a claim is the hash of what came; of nothing, there must be none."""
    expected = hashlib.sha256(content).hexdigest() if content else ""
    return hmac.compare_digest(str(told or "").encode(), expected.encode())
