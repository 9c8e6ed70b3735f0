"""Where the links in bulk mail lead (RFC 8058): a page with a button, and what the button and mail providers do.

Looking at a link changes nothing, for scanners of mail look at every link; posting to it unsubscribes, without login,
cookie or further question. The link itself is the proof, see `UnsubscribeLinks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from notifications_worker.suppression import bulk
from notifications_worker.unsubscribe_links import PATH

if TYPE_CHECKING:
    from notifications_worker.suppression import Suppressions
    from notifications_worker.unsubscribe_links import Subscription, UnsubscribeLinks

__all__ = ["ROUTE", "UNSUBSCRIBED", "UnsubscribePages"]

log = structlog.get_logger()

ROUTE = PATH + "/{token}"
UNSUBSCRIBED = "UNSUBSCRIBED"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
</head>
<body>
<h1>{title}</h1>
{rest}
</body>
</html>
"""
_BUTTON = """<p>You will get no more mail of this kind from this sender.</p>
<form method="post"><button name="List-Unsubscribe" value="One-Click">Unsubscribe</button></form>"""


class UnsubscribePages:
    """Both answer 404 for a link that was not made here; what else goes wrong is the server's to answer with 503."""

    def __init__(self, links: UnsubscribeLinks, suppressions: Suppressions) -> None:
        self._links = links
        self._suppressions = suppressions

    async def page(self, request: web.Request) -> web.Response:
        """Show the button. Changes nothing."""
        self._subscription(request)
        return _shown("Unsubscribe", _BUTTON)

    async def unsubscribe(self, request: web.Request) -> web.Response:
        """Send no more bulk mail to whom the link is for; harmless when repeated. The request's body is not read."""
        subscription = self._subscription(request)
        await self._suppressions.add(subscription.tenant_id, bulk("EMAIL"), subscription.address, UNSUBSCRIBED)
        log.info("recipient_unsubscribed", tenantId=subscription.tenant_id)
        return _shown("You are unsubscribed", "<p>You can close this page.</p>")

    def _subscription(self, request: web.Request) -> Subscription:
        subscription = self._links.opened(request.match_info["token"])
        if subscription is None:
            page = _PAGE.format(
                title="This link does not work", rest="<p>Please use the one in your mail, in full.</p>"
            )
            raise web.HTTPNotFound(text=page, content_type="text/html", headers=_HEADERS)
        return subscription


def _shown(title: str, rest: str) -> web.Response:
    return web.Response(text=_PAGE.format(title=title, rest=rest), content_type="text/html", headers=_HEADERS)
