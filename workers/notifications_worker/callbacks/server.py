"""The server that providers call, on CALLBACK_PORT: on the worker's own event loop, apart from the health server.

The outside reaches it, so a request is small, complete within seconds, and proves who sent it before it changes
anything.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from worker_runtime.loops import BEAT_SECONDS, Heartbeat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aiohttp.typedefs import Handler, Middleware

    from notifications_worker.callbacks.routes import CallbackRoute
    from notifications_worker.callbacks.settings import CallbackSettings
    from worker_runtime.loops import StopSignal

__all__ = ["CallbackPortUnavailable", "CallbackServer", "callback_server", "opened_callbacks"]

log = structlog.get_logger()

LONGEST_REQUEST_BYTES = 65_536
REQUEST_SECONDS = 10.0
IDLE_SECONDS = 15.0
SHUTDOWN_SECONDS = 2.0


class CallbackPortUnavailable(Exception):
    """The server cannot listen where it should; another `CALLBACK_PORT` or `CALLBACK_HOST` helps."""


class CallbackServer:
    """See `Loop`: it listens for as long as the worker works. `port` is the one in use."""

    name = "callbacks"

    def __init__(self, port: int) -> None:
        self.port = port
        self.heartbeat = Heartbeat()

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`. The requests themselves are aiohttp's; this says that the event loop they need turns."""
        while not await stop.sleep(BEAT_SECONDS):
            self.heartbeat.beat()


@asynccontextmanager
async def opened_callbacks(
    settings: CallbackSettings, routes: Sequence[CallbackRoute]
) -> AsyncIterator[tuple[CallbackServer, ...]]:
    """Listen where CALLBACK_PORT says, if it does; a loop for whoever runs the loops."""
    if settings.callback_port is None:
        yield ()
        return
    async with callback_server(routes, host=settings.callback_host, port=settings.callback_port) as server:
        yield (server,)


@asynccontextmanager
async def callback_server(
    routes: Sequence[CallbackRoute],
    *,
    host: str,
    port: int,
    request_seconds: float = REQUEST_SECONDS,
    idle_seconds: float = IDLE_SECONDS,
) -> AsyncIterator[CallbackServer]:
    """Listen; on leaving, requests that are there get a moment. Raises CallbackPortUnavailable."""
    application = web.Application(middlewares=[_guard(request_seconds)], client_max_size=LONGEST_REQUEST_BYTES)
    for route in routes:
        application.router.add_route(route.method, route.path, route.handle)
    runner = web.AppRunner(
        application, access_log=None, keepalive_timeout=idle_seconds, shutdown_timeout=SHUTDOWN_SECONDS
    )
    await runner.setup()
    try:
        yield CallbackServer(await _listening(runner, host, port))
    finally:
        await runner.cleanup()


async def _listening(runner: web.AppRunner, host: str, port: int) -> int:
    try:
        await web.TCPSite(runner, host, port, reuse_address=True).start()
    except (OSError, UnicodeError) as error:  # The latter for a host name that cannot be one.
        why = getattr(error, "strerror", None) or error
        raise CallbackPortUnavailable(
            f"CALLBACK_PORT={port} on CALLBACK_HOST={host!r}: {why}; allowed: a free port"
        ) from error
    taken: int = runner.addresses[0][1]
    log.info("callback_server_listening", host=host, port=taken)
    return taken


def _guard(seconds: float) -> Middleware:
    """Bound a request in time, and answer for what fails: the caller shall come again, and learn nothing."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            async with asyncio.timeout(seconds):
                return await handler(request)
        except web.HTTPException:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the provider calls again
            log.error("callback_failed", route=route_of(request), error=type(error).__name__)  # noqa: TRY400  no traceback: it may hold a number
            return web.Response(status=503, headers={"Retry-After": "60"})

    return guarded


def route_of(request: web.Request) -> str:
    """Return what a request asked for without what its path names: that may be a sealed address."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else "unknown"
