"""The one door for HTTP that leaves a worker.

    async with egress(settings) as client:
        reply = await client.post(url, body, {"Content-Type": "application/json"}, timeout_seconds=15)

Tenants choose where webhooks go, so a URL is a stranger's: it may name the machine's own services, by whatever spelling
or name. What counts is therefore the concrete address, looked at when the socket for it is made; a name that resolves
differently a moment later changes nothing. No cookie is kept, no proxy or .netrc of the environment used, and of an
answer no more is read than is kept. No redirect is followed, but by `streamed`, through the same guard.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import aiohttp

from worker_runtime.egress.addresses import AddressRules, read_url
from worker_runtime.egress.doors import Door, NotingResponse, Turnstile, opened_door
from worker_runtime.egress.failures import FAILURES, Trip, failure, too_late, under_way
from worker_runtime.egress.streaming import Seeker

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping
    from typing import Protocol

    from aiohttp.abc import AbstractResolver

    from worker_runtime.egress.addresses import Target
    from worker_runtime.egress.streaming import Patience, StreamedReply

    class EgressSettings(Protocol):
        """Whatever has the variable."""

        @property
        def egress_allowed_cidrs(self) -> tuple[str, ...]:
            """Networks that may be reached though they are not public."""


__all__ = ["KEPT_BYTES", "EgressClient", "EgressReply", "egress", "trusted_egress"]

KEPT_BYTES = 16_384
USER_AGENT = "IntelliFlow"
# An answer that somebody else compressed is not taken apart, so none is asked for.
OWN_HEADERS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class EgressReply:
    """What was answered.

    `headers` can be asked in any case. `body` is at most the first 16 KiB (or `kept_bytes`), as sent; `whole`: there
    was no more, and it all came in time. `remote` is the address that answered.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    remote: str


@dataclass(frozen=True, slots=True)
class Order:
    """A request."""

    method: str
    target: Target
    body: bytes | None
    headers: Mapping[str, str]
    deadline: float


class EgressClient:
    """Sends requests. Every method raises EgressRefused, NotReached or NoAnswer, and may be called at once by many.

    Without `rules` it trusts the URLs it is given, as an operator's are: any address, port and scheme.
    """

    def __init__(
        self,
        any_public: Door,
        only_listed: Door,
        rules: AddressRules | None,
        *,
        repeat: bool,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._any_public = any_public
        self._only_listed = only_listed
        self._rules = rules
        self._repeat = repeat
        self._kept_bytes = kept_bytes

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float) -> EgressReply:
        """Send exactly these bytes; the time limit covers the name, the connection and the whole answer.

        A slow body does not undo a status that has come: what came of it in time is returned.
        """
        return await self.request("POST", url, body, headers, timeout_seconds)

    async def get(self, url: str, headers: Mapping[str, str], timeout_seconds: float) -> EgressReply:
        """Ask for something; see `post`."""
        return await self.request("GET", url, None, headers, timeout_seconds)

    @asynccontextmanager
    async def streamed(self, url: str, headers: Mapping[str, str], patience: Patience) -> AsyncIterator[StreamedReply]:
        """Ask for something of any size; hang up on leaving. See `Seeker` for what becomes of redirects."""
        seeker = Seeker(lambda target: self._door(target).fresh, self._rules, OWN_HEADERS)
        reply = await seeker.found(url, headers, patience)
        try:
            yield reply
        finally:
            reply.close()

    def _door(self, target: Target) -> Door:
        return self._any_public if target.usual else self._only_listed

    async def request(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout_seconds: float
    ) -> EgressReply:
        """Send a request of any method; see `post`."""
        target = read_url(url)
        if self._rules is not None:
            self._rules.refuse_literal(target)
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        order = Order(method, target, body, OWN_HEADERS | dict(headers), deadline)
        trip = Trip()
        token = under_way.set(trip)
        try:
            return await self._exchange(order, trip)
        except TimeoutError as error:
            raise too_late(target, trip, timeout_seconds) from error
        except FAILURES as error:
            raise failure(target, trip, error) from error
        finally:
            under_way.reset(token)

    async def _exchange(self, order: Order, trip: Trip) -> EgressReply:
        response = await self._answered(order, trip)
        body, whole = await _excerpt(response, order.deadline, self._kept_bytes)
        response.release()  # Its connection is kept only if nothing of the body is still to come.
        return EgressReply(response.status, response.headers, body, whole, response.remote)

    async def _answered(self, order: Order, trip: Trip) -> NotingResponse:
        door = self._door(order.target)
        async with asyncio.timeout_at(order.deadline):
            try:
                return await _sent(door.kept, order)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # The other side had closed a connection we kept: the usual end of one, and nobody's failure.
                if not (trip.reused and self._repeat):
                    raise
            return await _sent(door.fresh, order)


async def _sent(session: aiohttp.ClientSession, order: Order) -> NotingResponse:
    response = await session.request(
        order.method, order.target.url, data=order.body, headers=order.headers, allow_redirects=False
    )
    return cast("NotingResponse", response)  # The sessions' `response_class`.


async def _excerpt(response: NotingResponse, deadline: float, most: int) -> tuple[bytes, bool]:
    """Read what is kept of the body; the second value tells whether that was all of it."""
    kept = bytearray()
    try:
        async with asyncio.timeout_at(deadline):
            while len(kept) < most and (piece := await response.content.read(most - len(kept))):
                kept += piece
    except (TimeoutError, *FAILURES):
        return bytes(kept), False
    except BaseException:
        response.close()
        raise
    return bytes(kept), response.content.at_eof()


@asynccontextmanager
async def egress(
    settings: EgressSettings,
    *,
    tls: ssl.SSLContext | None = None,
    resolver: AbstractResolver | None = None,
    kept_bytes: int = KEPT_BYTES,
) -> AsyncIterator[EgressClient]:
    """Open a client for strangers' URLs.

    It sends a request again, at once, when a kept connection turns out to be dead: what it sends must bear that. `tls`
    replaces the system's trusted certificates, `resolver` its way to look up names. Of an answer's body the first
    `kept_bytes` are kept.
    """
    rules = AddressRules.of(settings.egress_allowed_cidrs)
    async with AsyncExitStack() as opened:
        any_public = await opened_door(opened, Turnstile(rules, only_listed=False), tls, resolver)
        only_listed = await opened_door(opened, Turnstile(rules, only_listed=True), tls, resolver)
        yield EgressClient(any_public, only_listed, rules, repeat=True, kept_bytes=kept_bytes)


@asynccontextmanager
async def trusted_egress(
    *, tls: ssl.SSLContext | None = None, kept_bytes: int = KEPT_BYTES
) -> AsyncIterator[EgressClient]:
    """Open a client for addresses that an operator configured (a provider's): the same limits, any address.

    It sends nothing twice by itself: a provider may charge for each.
    """
    async with AsyncExitStack() as opened:
        door = await opened_door(opened, Turnstile(None, only_listed=False), tls, None)
        yield EgressClient(door, door, None, repeat=False, kept_bytes=kept_bytes)
