"""An answer as large as it likes, piece by piece: the way by which documents come in.

Redirects are followed, each through the same guard as the first request. A server has to keep a pace as well as a time
limit, so that one which sends a byte now and then is given up soon.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from worker_runtime.egress.addresses import EgressRefused, Target, read_url
from worker_runtime.egress.failures import FAILURES, NoAnswer, Trip, failure, too_late, under_way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from worker_runtime.egress.addresses import AddressRules
    from worker_runtime.egress.doors import NotingResponse

__all__ = ["Patience", "Seeker", "StreamedReply"]

MOST_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
# aiohttp stops reading the socket at twice as much.
READ_BYTES = 262_144
# Everything printable in ASCII but the blank: what a Location holds beside it is written as %XX.
URL_CHARACTERS = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may take: to be connected to, for all of it, and at least how much it must send meanwhile.

    `least_bytes` have to come in each `window_seconds` that are spent waiting for them.
    """

    total_seconds: float
    connect_seconds: float = 10.0
    window_seconds: float = 10.0
    least_bytes: int = 10_240


class StreamedReply:
    """An answer whose body is still to come. `url` is the one that answered, after all redirects."""

    def __init__(self, response: NotingResponse, target: Target, patience: Patience, deadline: float) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.url = str(target.url)
        self.host = target.url.host or ""
        self._response = response
        self._patience = patience
        self._deadline = deadline
        self._waited = 0.0
        self._came = 0

    @property
    def size(self) -> int | None:
        """How many bytes the server says the body has."""
        return self._response.content_length

    async def piece(self) -> bytes:
        """Return what has come since, at most half a MiB, and nothing at the end.

        Raises NoAnswer when the body breaks off before the size it was said to have, or comes too slowly.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        patient_until = began + self._patience.window_seconds - self._waited
        try:
            async with asyncio.timeout_at(min(patient_until, self._deadline)):
                piece = await self._response.content.readany()
        except TimeoutError as error:
            raise self._too_slow(patient_until) from error
        except FAILURES as error:
            raise NoAnswer(f"{self.host} closed the connection in the middle of its answer") from error
        self._keep_pace(len(piece), loop.time() - began)
        return piece

    def close(self) -> None:
        """Hang up, whatever is still to come."""
        self._response.close()

    def _keep_pace(self, size: int, seconds: float) -> None:
        self._waited += seconds
        self._came += size
        if self._came >= self._patience.least_bytes:
            self._waited, self._came = 0.0, 0

    def _too_slow(self, patient_until: float) -> NoAnswer:
        patience = self._patience
        if patient_until < self._deadline:
            pace = f"less than {patience.least_bytes} bytes in {patience.window_seconds:g} s"
            return NoAnswer(f"{self.host} sends too slowly: {pace}", timed_out=True)
        return NoAnswer(f"{self.host} did not send everything within {patience.total_seconds:g} s", timed_out=True)


@dataclass(frozen=True, slots=True)
class Seeker:
    """Asks for something, and there where it is said to be.

    `session` chooses how a target may be reached, `own` are the headers that everybody gets.
    """

    session: Callable[[Target], aiohttp.ClientSession]
    rules: AddressRules | None
    own: Mapping[str, str]

    async def found(self, url: str, headers: Mapping[str, str], patience: Patience) -> StreamedReply:
        """Return the answer that is no redirect. Raises EgressRefused, NotReached or NoAnswer.

        The caller's headers go to the origin of `url` and to no other. Without rules no redirect is followed.
        """
        deadline = asyncio.get_running_loop().time() + patience.total_seconds
        first = target = self._admitted(url)
        for _ in range(MOST_REDIRECTS + 1):
            with _blaming(first, target):
                reply = await _asked(self.session(target), target, {**self.own, **headers}, patience, deadline)
            onward = _onward(reply) if self.rules is not None else None
            if onward is None:
                return reply
            reply.close()
            target = self._redirected(first, target, onward)
            headers = headers if target.url.origin() == first.url.origin() else {}
        raise EgressRefused(f"{first.url.host} redirects more than {MOST_REDIRECTS} times")

    def _admitted(self, url: str) -> Target:
        target = read_url(url)
        if self.rules is not None:
            self.rules.refuse_literal(target)
        return _as_written(target, url)

    def _redirected(self, first: Target, at: Target, onward: str) -> Target:
        try:
            there = str(at.url.join(URL(onward, encoded=True)))
        except ValueError as error:
            raise EgressRefused(f"{first.url.host} redirects to what is not a URL") from error
        with _blaming(first, None):
            return self._admitted(there)


@contextmanager
def _blaming(first: Target, target: Target | None) -> Iterator[None]:
    """Say who led to a target that was refused."""
    try:
        yield
    except EgressRefused as refusal:
        if target is first:
            raise
        raise EgressRefused(f"{first.url.host} redirects to where nobody is to be sent: {refusal}") from refusal


def _as_written(target: Target, text: str) -> Target:
    """Keep path and query byte for byte: a signature may have been made over them, escapes included."""
    parts = urlsplit(text)
    rest = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not rest.isascii():
        return target
    return Target(URL(f"{target.url.origin()}{rest}", encoded=True), target.usual)


async def _asked(
    session: aiohttp.ClientSession, target: Target, headers: Mapping[str, str], patience: Patience, deadline: float
) -> StreamedReply:
    trip = Trip()
    token = under_way.set(trip)
    try:
        async with asyncio.timeout_at(deadline):
            response = await session.get(
                target.url,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=patience.connect_seconds),
                read_bufsize=READ_BYTES,
            )
    except aiohttp.ServerTimeoutError as error:
        raise too_late(target, trip, patience.connect_seconds) from error
    except TimeoutError as error:
        raise too_late(target, trip, patience.total_seconds) from error
    except FAILURES as error:
        raise failure(target, trip, error) from error
    finally:
        under_way.reset(token)
    return StreamedReply(cast("NotingResponse", response), target, patience, deadline)


def _onward(reply: StreamedReply) -> str | None:
    location = reply.headers.get("Location", "").strip()
    if reply.status not in REDIRECTS or not location:
        return None
    return quote(location.encode("utf-8", "surrogateescape"), safe=URL_CHARACTERS)
