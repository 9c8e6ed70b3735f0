"""Circuit breakers: a dependency that keeps failing is left alone for a while, then asked once, by one replica.

State is shared (`state.py`); this side keeps a copy so that a closed breaker costs no Redis call, learns what other
replicas did when it refreshes, and logs every transition. With Redis away calls are allowed.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import structlog

from worker_runtime.ramp import Ramp
from worker_runtime.redis.connection import RedisError, RedisUnavailable
from worker_runtime.state import BreakerLimits, BreakerPosition, BreakerReading, BreakerState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from worker_runtime.metrics import DependencyMetrics
    from worker_runtime.redis.connection import RedisConnection
    from worker_runtime.state import BreakerVerb

log = structlog.get_logger()

ASK_SECONDS = 1.0
PROBE_MARGIN_SECONDS = 5.0
# Others' probe usually ends long before its lease does.
LOOK_AGAIN_SECONDS = 1.0


class CircuitOpen(Exception):
    """Not now: the dependency is left alone; `seconds` from now it may be tried."""

    def __init__(self, dependency: str, seconds: float) -> None:
        super().__init__(f"the circuit of {dependency} is open for another {seconds:.1f} s")
        self.dependency = dependency
        self.seconds = seconds


class Breaker:
    """The breaker of one dependency. Belongs to the event loop that made it."""

    def __init__(self, dependency: str, state: BreakerState, metrics: DependencyMetrics, siblings: Breakers) -> None:
        self.dependency = dependency
        self.group = group_of(dependency)
        self.reading = BreakerReading()
        self._state = state
        self._metrics = metrics
        self._siblings = siblings
        self._redis_away = False
        self.ramp = Ramp()
        # Whether the shared state was ever asked for, and how many calls are under way.
        self.known = False
        self.calls = 0

    @property
    def is_forgettable(self) -> bool:
        """Whether nothing is lost by asking for the shared state anew: one of many endpoints, at rest and closed."""
        at_rest = self.known and not self.calls and not self.reading.failures
        return self.dependency != self.group and at_rest and self.reading.position is BreakerPosition.CLOSED

    async def open_for(self) -> float:
        """Return for how many seconds nothing should be tried; 0 when closed or when a probe may go. Never raises."""
        if self.reading.position is BreakerPosition.CLOSED:
            return 0.0
        reading = await self.ask("peek")
        if reading.position is BreakerPosition.HALF_OPEN:
            return min(reading.wait_seconds, LOOK_AGAIN_SECONDS)
        return reading.wait_seconds

    def guard(self) -> Call:
        """Guard one call: `async with breaker.guard() as call`; entering raises `CircuitOpen`."""
        return Call(self)

    async def refresh(self) -> None:
        """Learn what other replicas did. Never raises."""
        await self.ask("peek")

    async def restart(self) -> None:
        """Turn an open breaker half-open: starting a process is the operator's way to have it tried now."""
        await self.ask("restart")

    async def ask(self, verb: BreakerVerb, owner: str = "") -> BreakerReading:
        """Ask the shared state; with Redis away the answer is: go."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                reading = await self._state.ask(verb, owner)
        except (RedisUnavailable, RedisError, TimeoutError) as error:
            self._note_redis(away=True, error=error)
            return BreakerReading()
        self._note_redis(away=False)
        self._learn(reading, verb)
        return reading

    def health(self) -> dict[str, Any]:
        """Return what `/health/detailed` shows."""
        until = self.reading.open_until if self.reading.position is BreakerPosition.OPEN else None
        shown = None if until is None else datetime.fromtimestamp(until, UTC).isoformat(timespec="milliseconds")
        return {
            "state": self.reading.position.name,
            "openUntil": shown and shown.replace("+00:00", "Z"),
            "failures": self.reading.failures,
        }

    def _learn(self, reading: BreakerReading, verb: str) -> None:
        self.known = True
        before, self.reading = self.reading.position, reading
        if reading.position is before:
            return
        if reading.position is BreakerPosition.CLOSED:
            self.ramp.begin()
        state = reading.position.name.lower()
        self._metrics.moved(self.group, state)
        self._siblings.show(self.group)
        say = log.warning if reading.position is BreakerPosition.OPEN else log.info
        say(
            f"circuit_{state}",
            dependency=self.dependency,
            was=before.name.lower(),
            failures=reading.failures,
            retryInMs=round(reading.wait_seconds * 1000),
            because=verb,
        )

    def _note_redis(self, *, away: bool, error: Exception | None = None) -> None:
        if away and not self._redis_away:
            log.warning("circuit_state_unreachable", dependency=self.dependency, error=repr(error), calls="allowed")
        self._redis_away = away


class Call:
    """One guarded call. Leaving without a verdict is success; an exception that leaves is no verdict at all."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._owner = ""
        self._verdict: BreakerVerb = "succeeded"

    def failed(self, reason: str) -> None:
        """Count a failure of the dependency: a timeout, a refused connection, its own error."""
        self._accuse("failed", reason)

    def failed_for_good(self, reason: str) -> None:
        """Open at once: credentials or configuration are wrong, and no repetition helps."""
        self._accuse("failed_for_good", reason)

    def _accuse(self, verdict: BreakerVerb, reason: str) -> None:
        self._verdict = verdict
        log.warning("circuit_failure", dependency=self._breaker.dependency, reason=reason, verdict=verdict)

    async def __aenter__(self) -> Self:
        breaker = self._breaker
        if not breaker.known or breaker.reading.position is not BreakerPosition.CLOSED:
            owner = uuid.uuid4().hex
            reading = await breaker.ask("acquire", owner)
            if not reading.granted:
                half_open = reading.position is BreakerPosition.HALF_OPEN
                wait = min(reading.wait_seconds, LOOK_AGAIN_SECONDS) if half_open else reading.wait_seconds
                raise CircuitOpen(breaker.dependency, wait)
            self._owner = owner if reading.probe else ""
        if not self._owner:
            await breaker.ramp.enter()
        breaker.calls += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._breaker.calls -= 1
        if not self._owner:
            self._breaker.ramp.leave()
        if error is not None and self._verdict == "succeeded":
            if self._owner:
                await self._breaker.ask("release", self._owner)
        elif self._verdict != "succeeded" or self._owner or self._breaker.reading.failures:
            await self._breaker.ask(self._verdict, self._owner)


class Breakers:
    """All breakers of a process, one for each dependency."""

    def __init__(
        self, redis: RedisConnection, prefix: str, metrics: DependencyMetrics, *, threshold: int, reset_ms: int
    ) -> None:
        self._redis = redis
        self._prefix = prefix
        self._metrics = metrics
        self._threshold = threshold
        self._reset_ms = reset_ms
        self._by_dependency: dict[str, Breaker] = {}

    def of(self, dependency: str, call_seconds: float) -> Breaker:
        """Return the dependency's breaker. `call_seconds`, the longest a call may take, bounds a probe's lease."""
        if dependency not in self._by_dependency:
            probe_ms = round((call_seconds + PROBE_MARGIN_SECONDS) * 1000)
            limits = BreakerLimits(self._threshold, self._reset_ms, probe_ms)
            state = BreakerState(self._redis, self._prefix, dependency, limits)
            breaker = self._by_dependency[dependency] = Breaker(dependency, state, self._metrics, self)
            self._metrics.announce(breaker.group)
            # Others of the group may be open.
            self.show(breaker.group)
        return self._by_dependency[dependency]

    def __iter__(self) -> Iterator[Breaker]:
        return iter(self._by_dependency.values())

    async def refresh(self) -> None:
        """Learn what other replicas did, and forget endpoints that nothing is sent to: there may be many."""
        await asyncio.gather(*(breaker.refresh() for breaker in self._by_dependency.values()))
        self._by_dependency = {name: one for name, one in self._by_dependency.items() if not one.is_forgettable}

    async def restart(self) -> None:
        """See `Breaker.restart`."""
        await asyncio.gather(*(breaker.restart() for breaker in self._by_dependency.values()))

    def show(self, group: str) -> None:
        """Set the group's gauge to its worst state."""
        positions = [int(one.reading.position) for one in self._by_dependency.values() if one.group == group]
        self._metrics.breakers(group, positions)

    def health(self) -> dict[str, dict[str, Any]]:
        """Return the worst breaker of each group, as `/health/detailed` shows it."""
        worst: dict[str, Breaker] = {}
        for breaker in self._by_dependency.values():
            other = worst.get(breaker.group)
            if other is None or breaker.reading.position > other.reading.position:
                worst[breaker.group] = breaker
        return {group: breaker.health() for group, breaker in worst.items()}


def group_of(dependency: str) -> str:
    """Return what metrics call a dependency: `webhook:<endpoint>` is one of the many `webhook`."""
    return dependency.partition(":")[0]
