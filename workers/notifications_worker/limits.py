"""Rates below a queue's own limit: of one tenant, and of one endpoint, exact over all replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker_runtime.outcome import Defer

if TYPE_CHECKING:
    from notifications_worker.channel import AnyRoute
    from notifications_worker.notification import Notification
    from worker_runtime.delivery_state import RateLimits

__all__ = ["Limits", "TenantLimit"]

SECOND_MS = 1000


@dataclass(frozen=True, slots=True)
class TenantLimit:
    """At most `most` notifications of one tenant within any `window_ms`."""

    most: int
    window_ms: int


class Limits:
    """One channel's. Raises one of `ledger.UNAVAILABLE` for what time may cure."""

    def __init__(self, rates: RateLimits, channel: str, tenant: TenantLimit | None) -> None:
        self._rates = rates
        self._channel = channel
        self._tenant = tenant

    async def wait(self, notification: Notification, route: AnyRoute) -> Defer | None:
        """Take what one message needs, or say how long to wait for it."""
        return await self._of_route(route) or await self._of_tenant(notification)

    async def _of_route(self, route: AnyRoute) -> Defer | None:
        if route.per_second is None:
            return None
        # Less than one a second is one in so many milliseconds.
        most = max(1, int(route.per_second))
        seconds = await self._rates.take(route.circuit, most, round(SECOND_MS * most / route.per_second))
        return Defer("RATE_LIMITED", "the endpoint's limit is reached", seconds) if seconds else None

    async def _of_tenant(self, notification: Notification) -> Defer | None:
        if self._tenant is None:
            return None
        what = f"tenant:{self._channel}:{notification.tenant_id}"
        seconds = await self._rates.take(what, self._tenant.most, self._tenant.window_ms)
        return Defer("RATE_LIMITED", "the tenant's limit is reached", seconds) if seconds else None
