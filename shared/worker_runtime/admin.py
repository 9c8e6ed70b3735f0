"""`/admin/...` on `HEALTH_PORT`: what somebody who has OPS_TOKEN may ask a running worker to do.

The health server's thread checks who asks and what; the action itself runs on the worker's own loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import web
    from pydantic import SecretStr

log = structlog.get_logger()

PREFIX = "/admin/"
MOST_BYTES = 1_048_576
BODY_SECONDS = 10.0
ACTION_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: the JSON object of the body (empty without one) and the address that asked."""

    body: Mapping[str, Any]
    remote: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status, a JSON object, and headers if need be."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


Action = Callable[[Request], Awaitable[Answer]]


class AdminDoors:
    """The actions that are open, by method and path. Opened on the worker's loop, asked from the health server's."""

    def __init__(self, token: SecretStr | None) -> None:
        self._token = token.get_secret_value().encode() if token else b""
        self._actions: Mapping[tuple[str, str], Action] = MappingProxyType({})
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.contextmanager
    def opened(self, actions: Mapping[tuple[str, str], Action]) -> Iterator[None]:
        """Offer actions by method and path (`/admin/...`) for as long as the block lasts, on the running loop."""
        self._loop, self._actions = asyncio.get_running_loop(), MappingProxyType(dict(actions))
        try:
            yield
        finally:
            self._actions = MappingProxyType({})

    async def answer(self, request: web.Request) -> Answer:
        """Answer a request to `/admin/...`."""
        if not self._token:
            return Answer(404, {"error": "Not Found"})
        if refusal := self._refusal(request.headers.get("Authorization", "")):
            log.warning("admin_refused", path=request.path, remote=request.remote, status=refusal.status)
            return refusal
        allowed = [method for method, path in self._actions if path == request.path]
        if not allowed:
            return Answer(404, {"error": "Not Found"})
        if request.method not in allowed:
            return Answer(405, {"error": "Method Not Allowed"}, {"Allow": ", ".join(allowed)})
        body = await read_body(request)
        if isinstance(body, Answer):
            return body
        return await self._act(self._actions[request.method, request.path], Request(body, request.remote or "?"))

    def _refusal(self, authorization: str) -> Answer | None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            return Answer(401, {"error": "Authorization: Bearer OPS_TOKEN is needed"}, {"WWW-Authenticate": "Bearer"})
        # In the same time whatever was sent, so that nobody learns the token by its parts.
        if not hmac.compare_digest(token.strip().encode("utf-8", "replace"), self._token):
            return Answer(403, {"error": "this is not the OPS_TOKEN"})
        return None

    async def _act(self, action: Action, request: Request) -> Answer:
        if self._loop is None or self._loop.is_closed():
            return Answer(503, {"error": "the worker is stopping"})
        acting = asyncio.run_coroutine_threadsafe(_guarded(action, request), self._loop)
        try:
            async with asyncio.timeout(ACTION_SECONDS):
                return await asyncio.wrap_future(acting)
        except TimeoutError:
            return Answer(503, {"error": f"not done within {ACTION_SECONDS:g} s; look before you ask again"})


async def _guarded(action: Action, request: Request) -> Answer:
    try:
        return await action(request)
    except Exception as error:
        log.exception("admin_failed")
        return Answer(500, {"error": f"{type(error).__name__}; the log says more"})


async def read_body(request: web.Request) -> Mapping[str, Any] | Answer:
    """Read a JSON object of bounded size in bounded time."""
    if (request.content_length or 0) > MOST_BYTES:
        return _too_large()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await _read(request)
    except TimeoutError:
        return Answer(408, {"error": f"the body did not arrive within {BODY_SECONDS:g} s"})
    return _too_large() if len(raw) > MOST_BYTES else _object(raw)


async def _read(request: web.Request) -> bytes:
    raw = b""
    while len(raw) <= MOST_BYTES and (more := await request.content.readany()):
        raw += more
    return raw


def _object(raw: bytes) -> Mapping[str, Any] | Answer:
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        return Answer(400, {"error": f"the body is not readable as JSON: {error}"})
    return body if isinstance(body, dict) else Answer(400, {"error": "the body is not a JSON object"})


def _too_large() -> Answer:
    return Answer(413, {"error": f"the body has more than {MOST_BYTES} bytes"})
