"""Who wants no more SMS: kept where suppressed addresses are, and lifted only by the same wish undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from notifications_worker.suppression import Suppressions

__all__ = ["EVERY_TENANT", "OPTED_OUT", "OptOuts", "SharedSuppressions"]

OPTED_OUT = "OPTED_OUT"
# Whoever stops a number that tenants share, stops it for all of them: it is no tenant's id that a producer may give.
EVERY_TENANT = "*"


class OptOuts:
    """What answers and reports do to the suppressed addresses. Raises as `Suppressions` does."""

    def __init__(self, suppressions: Suppressions) -> None:
        self._suppressions = suppressions

    async def stop(self, tenant: str | None, number: str) -> None:
        """Send nothing to a number any more: for a tenant, or for all. May be said twice."""
        await self._suppressions.add(tenant or EVERY_TENANT, "SMS", number, OPTED_OUT)

    async def start(self, tenant: str | None, number: str) -> None:
        """Send to a number again, unless something else keeps us from it. May be said twice."""
        whose = tenant or EVERY_TENANT
        if await self._suppressions.reason(whose, "SMS", number) == OPTED_OUT:
            await self._suppressions.remove(whose, "SMS", number)


class SharedSuppressions:
    """See `Suppressions`: an address may be suppressed for every tenant too."""

    def __init__(self, suppressions: Suppressions) -> None:
        self._suppressions = suppressions

    async def reason(self, tenant: str, channel: str, address: str) -> str | None:
        """See `Suppressions`."""
        own = await self._suppressions.reason(tenant, channel, address)
        return own or await self._suppressions.reason(EVERY_TENANT, channel, address)

    async def add(self, tenant: str, channel: str, address: str, reason: str) -> None:
        """See `Suppressions`."""
        await self._suppressions.add(tenant, channel, address, reason)

    async def remove(self, tenant: str, channel: str, address: str) -> bool:
        """See `Suppressions`. What is suppressed for every tenant stays."""
        return await self._suppressions.remove(tenant, channel, address)
