"""Who may call back, and where: a route is one line in `callback_routes`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from notifications_worker.callbacks.messagebird import MessageBirdCallbacks
from notifications_worker.callbacks.opt_outs import OptOuts
from notifications_worker.callbacks.twilio import TwilioCallbacks
from notifications_worker.callbacks.unsubscribe import ROUTE, UnsubscribePages

if TYPE_CHECKING:
    from notifications_worker.callbacks.effects import DeliveryUpdates
    from notifications_worker.settings import NotificationsSettings
    from notifications_worker.suppression import Suppressions

__all__ = ["CallbackRoute", "callback_routes"]

# Must see for itself that the caller is who it should be, and raise HTTPForbidden. Any other error than aiohttp's own
# is answered 503, which asks the caller to come again.
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class CallbackRoute:
    """What answers a method and a path, which is below the one of PUBLIC_BASE_URL."""

    method: str
    path: str
    handle: Handler


def callback_routes(
    settings: NotificationsSettings, updates: DeliveryUpdates, suppressions: Suppressions
) -> list[CallbackRoute]:
    """Return the routes of the providers that have a secret to sign with, and of the links in bulk mail."""
    base, found = settings.public_base_url or "", []
    if token := settings.twilio_auth_token:
        shared = settings.twilio_webhook_key
        twilio = TwilioCallbacks(
            base,
            token.get_secret_value(),
            shared.get_secret_value() if shared else None,
            updates,
            OptOuts(suppressions),
        )
        found += [
            CallbackRoute("POST", "/callbacks/twilio/status", twilio.status),
            CallbackRoute("POST", "/callbacks/twilio/inbound", twilio.inbound),
        ]
    if key := settings.messagebird_signing_key:
        messagebird = MessageBirdCallbacks(base, key.get_secret_value(), updates)
        found += [
            CallbackRoute("GET", "/callbacks/messagebird/status", messagebird.status),
            CallbackRoute("POST", "/callbacks/messagebird/status", messagebird.status),
        ]
    if links := settings.unsubscribe_links():
        pages = UnsubscribePages(links, suppressions)
        found += [CallbackRoute("GET", ROUTE, pages.page), CallbackRoute("POST", ROUTE, pages.unsubscribe)]
    return found
