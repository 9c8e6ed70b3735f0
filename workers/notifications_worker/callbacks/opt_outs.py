"""Who wants no more SMS: kept where suppressed addresses are, and lifted only by the same wish undone.

People answer to a number, and tenants share it. So who says STOP says it to all of them, as the provider has it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from notifications_worker.suppression import Suppressions

__all__ = ["EVERY_TENANT", "OPTED_OUT", "OptOuts", "SharedSuppressions"]

OPTED_OUT = "OPTED_OUT"
# The one id that no producer can give.
EVERY_TENANT = ""


class OptOuts:
    """What answers and reports do to the suppressed numbers. Raises as `Suppressions` does."""

    def __init__(self, suppressions: Suppressions) -> None:
        self._suppressions = suppressions

    async def stop(self, number: str) -> None:
        """Send nothing to a number any more. May be said twice."""
        await self._suppressions.add(EVERY_TENANT, "SMS", number, OPTED_OUT)

    async def start(self, number: str) -> None:
        """Send to a number again, unless something else keeps us from it. May be said twice."""
        if await self._suppressions.reason(EVERY_TENANT, "SMS", number) == OPTED_OUT:
            await self._suppressions.remove(EVERY_TENANT, "SMS", number)


class SharedSuppressions:
    """See `Suppressions`: who opted out did so for every tenant, or a START could never lift it."""

    def __init__(self, suppressions: Suppressions) -> None:
        self._suppressions = suppressions

    async def reason(self, tenant: str, channel: str, address: str) -> str | None:
        """See `Suppressions`."""
        own = await self._suppressions.reason(tenant, channel, address)
        return own or await self._suppressions.reason(EVERY_TENANT, channel, address)

    async def add(self, tenant: str, channel: str, address: str, reason: str) -> None:
        """See `Suppressions`."""
        await self._suppressions.add(EVERY_TENANT if reason == OPTED_OUT else tenant, channel, address, reason)

    async def remove(self, tenant: str, channel: str, address: str) -> bool:
        """See `Suppressions`. What is suppressed for every tenant stays."""
        return await self._suppressions.remove(tenant, channel, address)
