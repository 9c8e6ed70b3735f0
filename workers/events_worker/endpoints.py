"""The webhook endpoints of tenants: who asked for which events."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from worker_runtime.event_patterns import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from events_worker.store import EndpointStore

# How long an endpoint that was added, changed or switched off is still what it was.
REMEMBERED_SECONDS = 5.0
MOST_TENANTS = 10_000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a tenant's; `patterns` are `lead.created`, `lead.*` or `*`."""

    id: str
    url: str
    patterns: tuple[str, ...]


class EndpointDirectory(Protocol):
    """Knows the endpoints of every tenant."""

    async def registered(self, tenant_id: str, event_type: str, /) -> Sequence[Endpoint]:
        """Return the tenant's active endpoints that want this type, the oldest first. May be called at once.

        Raises `DatabaseUnavailable` for what time may cure.
        """
        ...


class RememberedEndpoints:
    """The directory in the database, asked once in a while for each tenant that has events."""

    def __init__(self, store: EndpointStore, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._remembered: dict[str, tuple[float, list[Endpoint]]] = {}
        self._reading = asyncio.Lock()

    async def registered(self, tenant_id: str, event_type: str, /) -> Sequence[Endpoint]:
        """See `EndpointDirectory`."""
        endpoints = self._recall(tenant_id)
        if endpoints is None:
            async with self._reading:
                # Whoever was here first may have asked for the same tenant.
                endpoints = self._recall(tenant_id)
                if endpoints is None:
                    endpoints = self._remember(tenant_id, await self._store.of_tenant(tenant_id))
        return [endpoint for endpoint in endpoints if any(matches(one, event_type) for one in endpoint.patterns)]

    def _recall(self, tenant_id: str) -> list[Endpoint] | None:
        until, endpoints = self._remembered.get(tenant_id, (0.0, []))
        return endpoints if self._monotonic() < until else None

    def _remember(self, tenant_id: str, endpoints: list[Endpoint]) -> list[Endpoint]:
        # Taken out first: what was read last stands last, and the first is the one to forget.
        self._remembered.pop(tenant_id, None)
        if len(self._remembered) >= MOST_TENANTS:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[tenant_id] = (self._monotonic() + REMEMBERED_SECONDS, endpoints)
        return endpoints
