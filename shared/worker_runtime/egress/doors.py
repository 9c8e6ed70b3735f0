"""Sessions whose sockets are made for admitted addresses only."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from worker_runtime.egress.failures import under_way

if TYPE_CHECKING:
    import ssl
    from contextlib import AsyncExitStack

    from aiohttp.abc import AbstractResolver
    from aiohttp.connector import Connection

    from worker_runtime.egress.addresses import AddressRules

__all__ = ["Door", "NotingResponse", "Turnstile", "opened_door"]

KEEP_ALIVE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Door:
    """Sessions with the same rule for addresses. `fresh` never uses a connection twice."""

    kept: aiohttp.ClientSession
    fresh: aiohttp.ClientSession


class NotingResponse(aiohttp.ClientResponse):
    """A response that knows who sent it after its connection has gone back to the pool."""

    remote = ""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """See `ClientResponse`."""
        peer = connection.transport.get_extra_info("peername") if connection.transport else None
        self.remote = str(peer[0]) if peer else ""
        return await super().start(connection)


class Turnstile:
    """Makes the sockets of a connector, or refuses to: whatever led to an address, this is what stands before it."""

    def __init__(self, rules: AddressRules | None, *, only_listed: bool) -> None:
        self._rules = rules
        self._only_listed = only_listed

    def __call__(self, found: tuple[Any, ...]) -> socket.socket:
        """Return a socket for an entry of `getaddrinfo`. Raises OSError for an address that may not be reached."""
        family, kind, protocol, _, address = found
        if self._rules is not None and not self._rules.admit(address, only_listed=self._only_listed):
            under_way.get().turned_away = True
            raise OSError("this address may not be reached")
        under_way.get().admitted = True
        return socket.socket(family, kind, protocol)


async def _note_connected(*_: object) -> None:
    under_way.get().connected = True


async def _note_reused(*_: object) -> None:
    trip = under_way.get()
    trip.connected = trip.reused = True


def _trace() -> aiohttp.TraceConfig:
    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(_note_connected)
    trace.on_connection_reuseconn.append(_note_reused)
    return trace


async def opened_door(
    opened: AsyncExitStack, turnstile: Turnstile, tls: ssl.SSLContext | None, resolver: AbstractResolver | None
) -> Door:
    """Open the two sessions of a door, to be closed with `opened`."""
    sessions = [
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                socket_factory=turnstile,
                resolver=resolver,
                ssl=tls or True,
                limit=0,  # The queue's concurrency is the limit.
                **({"force_close": True} if fresh else {"keepalive_timeout": KEEP_ALIVE_SECONDS}),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            response_class=NotingResponse,
            auto_decompress=False,
            trust_env=False,
            trace_configs=[_trace()],
        )
        for fresh in (False, True)
    ]
    for session in sessions:
        await opened.enter_async_context(session)
    return Door(*sessions)
