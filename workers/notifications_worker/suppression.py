"""Addresses that nothing is sent to: they do not exist, or their owner has said so."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TYPE_CHECKING, Protocol

from worker_runtime.settings.queues import ADDRESSEES

if TYPE_CHECKING:
    from worker_runtime.delivery_state import SuppressedAddresses

__all__ = ["LISTS", "RedisSuppressions", "Suppressions", "bulk", "fingerprint"]


def fingerprint(address: str) -> str:
    """Return what stands for an address where the address itself must not: capital letters make no difference."""
    plain = unicodedata.normalize("NFC", address.strip()).casefold()
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def bulk(channel: str) -> str:
    """Return the list of those who want no bulk messages over a channel, and the others all the same."""
    return f"{channel}:BULK"


# Every list there may be.
LISTS = (*ADDRESSEES, *map(bulk, ADDRESSEES))


class Suppressions(Protocol):
    """By tenant and list: a channel (`EMAIL`), or `bulk` of it.

    Every method raises one of `ledger.UNAVAILABLE` for what time may cure.
    """

    async def reason(self, tenant: str, channel: str, address: str) -> str | None:
        """Return why nothing is sent to an address (`HARD_BOUNCE`, `OPTED_OUT`, `UNSUBSCRIBED`...), or nothing."""
        ...

    async def add(self, tenant: str, channel: str, address: str, reason: str) -> None:
        """Send nothing to an address any more; the first reason stays."""
        ...

    async def remove(self, tenant: str, channel: str, address: str) -> bool:
        """Send to an address again; false when it was not suppressed."""
        ...


class RedisSuppressions:
    """See `Suppressions`."""

    def __init__(self, addresses: SuppressedAddresses) -> None:
        self._addresses = addresses

    async def reason(self, tenant: str, channel: str, address: str) -> str | None:
        """See `Suppressions`."""
        return await self._addresses.reason(tenant, channel, fingerprint(address))

    async def add(self, tenant: str, channel: str, address: str, reason: str) -> None:
        """See `Suppressions`."""
        await self._addresses.add(tenant, channel, fingerprint(address), reason)

    async def remove(self, tenant: str, channel: str, address: str) -> bool:
        """See `Suppressions`."""
        return await self._addresses.remove(tenant, channel, fingerprint(address))
