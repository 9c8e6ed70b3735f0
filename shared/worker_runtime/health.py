"""The health server: six endpoints on their own thread and event loop, so that they answer when the worker cannot.

They read the board (`health_board.py`) and the metrics, and never ask Redis, Postgres or the main loop. What changes
something, below `/admin/`, is the main loop's (`admin.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from worker_runtime.admin import PREFIX, AdminDoors

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_runtime.health_board import HealthBoard

START_SECONDS = 10.0
STOP_SECONDS = 1.0
HEALTH_JSON = "application/health+json"
NO_STORE = {"Cache-Control": "no-store"}
DRAFT_STATUS = {"healthy": "pass", "degraded": "warn", "unhealthy": "fail", "ok": "pass", "error": "fail"}


class HealthPortUnavailable(Exception):
    """The health server cannot listen where it should; another `HEALTH_PORT` or `HEALTH_HOST` helps."""


class HealthServer:
    """Serves the board from a thread of its own. `port` is the one in use once `start` has returned."""

    def __init__(
        self, board: HealthBoard, scrape: Callable[[], bytes], *, host: str, port: int, doors: AdminDoors | None = None
    ) -> None:
        self._routes = routes(board, scrape)
        self._doors = doors or AdminDoors(None)
        self._host = host
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="health server", daemon=True)
        self._listening = threading.Event()
        self._failure: OSError | UnicodeError | None = None

    def start(self) -> None:
        """Listen; raises `HealthPortUnavailable`. Blocks for the moment that takes."""
        self._thread.start()
        self._listening.wait(START_SECONDS)
        if self._failure is not None:
            self._thread.join(STOP_SECONDS)
            why = getattr(self._failure, "strerror", None) or self._failure
            raise HealthPortUnavailable(
                f"HEALTH_PORT={self.port} on HEALTH_HOST={self._host!r}: {why}; allowed: a free port, or 0 for any"
            ) from self._failure

    def stop(self) -> None:
        """Stop listening; open requests get a moment. May be called twice."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # It has just ended by itself.
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STOP_SECONDS)

    def _serve(self) -> None:
        runner = web.AppRunner(_application(self._routes, self._doors), access_log=None, shutdown_timeout=0.5)
        try:
            self._loop.run_until_complete(self._listen(runner))
            self._listening.set()
            self._loop.run_forever()
        except (OSError, UnicodeError) as error:  # The latter for a host name that cannot be one.
            self._failure = error
            self._listening.set()
        finally:
            self._loop.run_until_complete(runner.cleanup())
            self._loop.close()

    async def _listen(self, runner: web.AppRunner) -> None:
        await runner.setup()
        await web.TCPSite(runner, self._host, self.port, reuse_address=True).start()
        self.port = runner.addresses[0][1]


Answer = tuple[int, dict[str, Any]]


def routes(board: HealthBoard, scrape: Callable[[], bytes]) -> dict[str, Callable[[web.Request], web.Response]]:
    """Return who answers which path."""

    def plain(answer: Callable[[], Answer]) -> Callable[[web.Request], web.Response]:
        return lambda _: _json(*answer())

    def either(answer: Callable[[], Answer]) -> Callable[[web.Request], web.Response]:
        def respond(request: web.Request) -> web.Response:
            code, body = answer()
            if HEALTH_JSON in request.headers.get("Accept", ""):
                return _json(code, as_draft(board, body), HEALTH_JSON)
            return _json(code, body)

        return respond

    def metrics(_: web.Request) -> web.Response:
        return web.Response(body=scrape(), headers={**NO_STORE, "Content-Type": CONTENT_TYPE_LATEST})

    return {
        "/health": either(board.summary),
        "/health/live": plain(board.live),
        "/health/startup": plain(board.startup),
        "/health/ready": plain(board.readiness),
        "/health/detailed": either(board.detailed),
        "/metrics": metrics,
    }


def as_draft(board: HealthBoard, body: dict[str, Any]) -> dict[str, Any]:
    """Rewrite a summary in the form of draft-inadarei-api-health-check-06."""
    identity = board.identity
    return {
        "status": DRAFT_STATUS[body["status"]],
        "version": identity.version.partition(".")[0],
        "releaseId": identity.version,
        "serviceId": identity.service,
        "output": "",
        "checks": {f"{name}:responseTime": [_draft_check(check)] for name, check in body["checks"].items()},
    }


def _draft_check(check: dict[str, Any]) -> dict[str, Any]:
    return {
        "componentType": "datastore",
        "observedValue": check["latency"],
        "observedUnit": "ms",
        "status": DRAFT_STATUS[check["status"]],
        "time": check["lastCheck"],
    }


def _application(paths: dict[str, Callable[[web.Request], web.Response]], doors: AdminDoors) -> web.Application:
    async def respond(request: web.Request) -> web.Response:
        if request.path.startswith(PREFIX):
            asked = await doors.answer(request)
            response = _json(asked.status, dict(asked.body))
            response.headers.update(asked.headers)
            return response
        answer = paths.get(request.path)
        if answer is None:
            return _json(404, {"error": "Not Found"})
        if request.method not in ("GET", "HEAD"):
            response = _json(405, {"error": "Method Not Allowed"})
            response.headers["Allow"] = "GET, HEAD"
            return response
        return answer(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", respond)
    return application


def _json(code: int, body: dict[str, Any], content_type: str = "application/json") -> web.Response:
    text = json.dumps(body, default=str)
    return web.Response(status=code, text=text, content_type=content_type, headers=NO_STORE)
