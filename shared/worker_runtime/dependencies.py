"""What a worker stands on: pinged once a second, waited for at the start, named when it is missing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from worker_runtime.health_board import CLOSED, DependencyReport, timestamp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from worker_runtime.breaker import Breakers
    from worker_runtime.metrics import Metrics

log = structlog.get_logger()

PING_SECONDS = 0.5
WAIT_BETWEEN_PINGS_SECONDS = 0.5
# A little less than the two pauses above together, or every second line would be skipped for a millisecond.
SAY_WAITING_EVERY_SECONDS = 0.9


@dataclass
class Dependency:
    """Something outside that must answer. `where` is its address without a login."""

    name: str
    ping: Callable[[], Awaitable[None]]
    where: str = ""
    error: str | None = "not asked yet"
    latency: float | None = None

    def __str__(self) -> str:
        """Name it for a person."""
        return f"{self.name} at {self.where}" if self.where else self.name

    async def check(self) -> bool:
        """Ping once, for `PING_SECONDS` at most; whatever goes wrong is the answer no."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self.ping()
        except TimeoutError:
            self.error, self.latency = f"no answer within {PING_SECONDS * 1000:.0f} ms", None
        except Exception as error:  # noqa: BLE001  a driver may raise anything; the question was whether it answers
            self.error, self.latency = f"{type(error).__name__}: {error}", None
        else:
            self.error, self.latency = None, time.perf_counter() - started
        return self.error is None


class Dependencies:
    """All required dependencies of a process, and the breakers of those that may fail."""

    def __init__(self, metrics: Metrics, breakers: Breakers) -> None:
        self._metrics = metrics
        self._breakers = breakers
        self._required: dict[str, Dependency] = {}

    def require(self, dependency: Dependency) -> None:
        """Make readiness depend on it, and the start wait for it."""
        self._required[dependency.name] = dependency
        self._metrics.dependencies.announce_ping(dependency.name)

    @property
    def missing(self) -> list[Dependency]:
        """Those that did not answer when last asked."""
        return [dependency for dependency in self._required.values() if dependency.error is not None]

    def excuse(self) -> str:
        """Say why the start could not go on."""
        if not self.missing:
            return "the start took too long"
        return "required and missing: " + "; ".join(f"{one} ({one.error})" for one in self.missing)

    async def wait_for(self, name: str) -> None:
        """Return once it has answered, saying about once a second what is missing. Waits for ever."""
        dependency, began, said = self._required[name], time.monotonic(), 0.0
        while not await dependency.check():
            now = time.monotonic()
            if now - said >= SAY_WAITING_EVERY_SECONDS:
                said = now
                log.warning(
                    "waiting_for_dependency",
                    dependency=name,
                    where=dependency.where,
                    error=dependency.error,
                    waitedMs=round((now - began) * 1000),
                )
            await asyncio.sleep(WAIT_BETWEEN_PINGS_SECONDS)

    async def wait_for_all(self) -> None:
        """Wait for every required dependency that did not answer yet."""
        for dependency in self.missing:
            await self.wait_for(dependency.name)

    async def look(self) -> Mapping[str, DependencyReport]:
        """Ask everything once and report it."""
        await asyncio.gather(self._breakers.refresh(), *(self._check(one) for one in self._required.values()))
        breakers, now = self._breakers.health(), timestamp()
        reports = {name: _guarded(breaker, now) for name, breaker in breakers.items()}
        for dependency in self._required.values():
            reports[dependency.name] = _required(dependency, breakers.get(dependency.name, CLOSED), now)
        return reports

    async def _check(self, dependency: Dependency) -> None:
        before = dependency.error
        if await dependency.check():
            self._metrics.dependencies.answered(dependency.name, dependency.latency or 0.0)
            if before is not None:
                log.info("dependency_answers", dependency=dependency.name)
            return
        self._metrics.dependencies.failed(dependency.name)
        if dependency.name == "redis":
            self._metrics.redis_errors.inc()
        if before is None:
            log.warning("dependency_lost", dependency=dependency.name, where=dependency.where, error=dependency.error)


def _required(dependency: Dependency, breaker: Mapping[str, object], now: str) -> DependencyReport:
    latency = None if dependency.latency is None else round(dependency.latency * 1000, 2)
    return DependencyReport("error" if dependency.error else "ok", now, latency, required=True, breaker=breaker)


def _guarded(breaker: Mapping[str, object], now: str) -> DependencyReport:
    return DependencyReport("ok" if breaker["state"] == "CLOSED" else "degraded", now, breaker=breaker)
