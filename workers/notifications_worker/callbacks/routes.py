"""Who may call back, and where: a route is one line below `callback_routes`."""

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
    from collections.abc import Iterator

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
    """Return the routes of whoever has a secret to sign with."""
    return [
        *_twilio(settings, updates, suppressions),
        *_messagebird(settings, updates),
        *_unsubscribe(settings, suppressions),
    ]


def _twilio(
    settings: NotificationsSettings, updates: DeliveryUpdates, suppressions: Suppressions
) -> Iterator[CallbackRoute]:
    if token := settings.twilio_auth_token:
        shared = settings.twilio_webhook_key.get_secret_value() if settings.twilio_webhook_key else None
        base = settings.public_base_url or ""
        called = TwilioCallbacks(base, token.get_secret_value(), shared, updates, OptOuts(suppressions))
        yield CallbackRoute("POST", "/callbacks/twilio/status", called.status)
        yield CallbackRoute("POST", "/callbacks/twilio/inbound", called.inbound)


def _messagebird(settings: NotificationsSettings, updates: DeliveryUpdates) -> Iterator[CallbackRoute]:
    if key := settings.messagebird_signing_key:
        called = MessageBirdCallbacks(settings.public_base_url or "", key.get_secret_value(), updates)
        yield CallbackRoute("GET", "/callbacks/messagebird/status", called.status)
        yield CallbackRoute("POST", "/callbacks/messagebird/status", called.status)


def _unsubscribe(settings: NotificationsSettings, suppressions: Suppressions) -> Iterator[CallbackRoute]:
    if links := settings.unsubscribe_links():
        pages = UnsubscribePages(links, suppressions)
        yield CallbackRoute("GET", ROUTE, pages.page)
        yield CallbackRoute("POST", ROUTE, pages.unsubscribe)
