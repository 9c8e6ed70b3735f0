"""Where a tenant's webhooks go, and how: what the channel asks of whoever keeps the endpoints."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit
from uuid import UUID

import structlog

from notifications_worker.channels.webhook_signature import SecretUnusable, read_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from notifications_worker.channels.webhook_signature import Key
    from notifications_worker.notification import Recipient
    from notifications_worker.store import EndpointRow, EndpointStore

__all__ = ["Endpoint", "EndpointBook", "RegisteredEndpoints", "UrlsOnly", "header_problem"]

log = structlog.get_logger()

REMEMBERED_SECONDS = 1.0
MOST_REMEMBERED = 10_000
# The tenant, the recipient's id and its URL.
Asked = tuple[str, str | None, str | None]

# A header's name as RFC 9110 has it, and a value that stays on its line.
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
VALUE = re.compile(r"[\x20-\x7e]{0,2048}")
# What the protocol or the signature is made of, and what would make the connection another one.
NOT_FOR_TENANTS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "date",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
    }
)
PREFIXES_NOT_FOR_TENANTS = ("webhook-", "proxy-", "x-forwarded-")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a tenant's.

    `id` is `None` when only the URL is known. `keys` sign each message, the current one first; without any, messages go
    unsigned. `permanent_statuses` are final beside 410. `failing`: no success has followed its last failure.
    `disabled_because` is set once nothing goes there any more.
    """

    id: str | None
    tenant_id: str
    url: str = field(repr=False)
    keys: tuple[Key, ...] = ()
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    permanent_statuses: frozenset[int] = frozenset()
    rate_per_second: float | None = None
    ordered: bool = False
    failing: bool = False
    disabled_because: str | None = None

    @property
    def name(self) -> str:
        """What logs, limits and the circuit call it: nothing that a URL may hold."""
        return self.id or f"url-{hashlib.sha256(f'{self.tenant_id} {self.url}'.encode()).hexdigest()[:16]}"


class EndpointBook(Protocol):
    """Knows the endpoints of every tenant, and how they have been doing.

    Every method may be called at once and raises `DatabaseUnavailable` for what time may cure.
    """

    async def find(self, tenant_id: str, recipient: Recipient) -> Endpoint | None:
        """Return the tenant's endpoint with `recipient.id`, or its URL's; never another tenant's."""
        ...

    async def succeeded(self, endpoint: Endpoint) -> None:
        """Note that it took a message."""
        ...

    async def failed(self, endpoint: Endpoint, *, gone: bool) -> bool:
        """Note that it took none, and return whether that was the end of it: `gone`, or nothing but failures too long.

        An endpoint that is disabled is so for everybody, and its tenant is told by an event.
        """
        ...


class UrlsOnly:
    """The book of a worker without a database: a URL is all there is, and nothing is remembered of it."""

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self._keys = keys

    async def find(self, tenant_id: str, recipient: Recipient) -> Endpoint | None:
        """See `EndpointBook`."""
        if recipient.webhook_url is None:
            return None
        return Endpoint(None, tenant_id, recipient.webhook_url, self._keys)

    async def succeeded(self, endpoint: Endpoint) -> None:
        """See `EndpointBook`."""

    async def failed(self, endpoint: Endpoint, *, gone: bool) -> bool:  # noqa: ARG002  nothing is remembered
        """See `EndpointBook`."""
        return False


class RegisteredEndpoints:
    """The book of a worker with a database. `fallback` signs where an endpoint has no secret of its own.

    What was read is remembered for a second: a busy endpoint is not read for each of its messages.
    """

    def __init__(
        self,
        store: EndpointStore,
        fallback: tuple[Key, ...],
        disable_after_seconds: float,
        *,
        remembered_seconds: float = REMEMBERED_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._fallback = fallback
        self._disable_after_seconds = disable_after_seconds
        self._remembered_seconds = remembered_seconds
        self._monotonic = monotonic
        self._remembered: dict[Asked, tuple[float, Endpoint | None]] = {}
        self._reading = asyncio.Lock()

    async def find(self, tenant_id: str, recipient: Recipient) -> Endpoint | None:
        """See `EndpointBook`. An id that is no endpoint's may be the person's: then it is the URL that counts."""
        asked = (tenant_id, recipient.id, recipient.webhook_url)
        if (known := self._recall(asked)) is not None:
            return known[1]
        async with self._reading:
            # Whoever was here first may have asked for the same one.
            if (known := self._recall(asked)) is not None:
                return known[1]
            return self._remember(asked, await self._read(*asked))

    async def _read(self, tenant_id: str, recipient_id: str | None, url: str | None) -> Endpoint | None:
        row = await self._store.find(tenant_id, _uuid(recipient_id), url)
        if row is not None:
            return self._endpoint(row)
        return None if url is None else Endpoint(None, tenant_id, url, self._fallback)

    def _recall(self, asked: Asked) -> tuple[float, Endpoint | None] | None:
        known = self._remembered.get(asked)
        return known if known and self._monotonic() < known[0] else None

    def _remember(self, asked: Asked, endpoint: Endpoint | None) -> Endpoint | None:
        # Taken out first: what was read last stands last, and the first is the one to forget.
        self._remembered.pop(asked, None)
        if len(self._remembered) >= MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[asked] = (self._monotonic() + self._remembered_seconds, endpoint)
        return endpoint

    def _endpoint(self, row: EndpointRow) -> Endpoint:
        return Endpoint(
            row.id,
            row.tenant_id,
            row.url,
            _keys(row) or self._fallback,
            _headers(row),
            frozenset(row.permanent_statuses),
            row.rate_per_second,
            row.ordered,
            row.failing,
            row.disabled_because,
        )

    async def succeeded(self, endpoint: Endpoint) -> None:
        """See `EndpointBook`."""
        # A failure within the second that the endpoint is remembered for is as good as at the same time.
        if endpoint.id is not None and endpoint.failing:
            await self._store.succeeded(endpoint.id)

    async def failed(self, endpoint: Endpoint, *, gone: bool) -> bool:
        """See `EndpointBook`."""
        if endpoint.id is None:
            return False
        host, limit = urlsplit(endpoint.url).hostname, self._disable_after_seconds
        disabled = await self._store.failed(endpoint.id, host, gone=gone, disable_after_seconds=limit)
        if disabled:
            self._remembered.clear()
        return disabled


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def _keys(row: EndpointRow) -> tuple[Key, ...]:
    """Return the endpoint's keys, the current one first. That one is unusable is said with every message."""
    keys = []
    for which, secret in (("secret", row.secret), ("previous_secret", row.previous_secret)):
        try:
            keys += [read_key(secret)] if secret else []
        except SecretUnusable as error:
            log.warning("webhook_secret_unusable", endpoint=row.id, column=which, reason=str(error))
    return tuple(keys)


def _headers(row: EndpointRow) -> Mapping[str, str]:
    problems = {name: header_problem(name, str(value)) for name, value in row.headers.items()}
    for problem in filter(None, problems.values()):
        log.warning("webhook_header_left_out", endpoint=row.id, reason=problem)
    return {name: str(value) for name, value in row.headers.items() if not problems[name]}


def header_problem(name: str, value: str) -> str | None:
    """Say why an endpoint may not have this header, or return `None`."""
    if not NAME.fullmatch(name):
        return f"{name[:40]!r} is not a header's name"
    if name.lower() in NOT_FOR_TENANTS or name.lower().startswith(PREFIXES_NOT_FOR_TENANTS):
        return f"{name} is not for an endpoint to choose"
    return None if VALUE.fullmatch(value) else f"the value of {name} is not one line of printable ASCII"
