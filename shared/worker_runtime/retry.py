"""When a failed job is tried again: pure decisions, taken by the consumer and carried out by the queue engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

JITTER = 0.10
MAX_HONOURED_ATTEMPTS = 20
MOST_ATTEMPTS = 2**31


class RetryPolicy(Protocol):
    """Decides, and does nothing else."""

    def attempts(self, options: Mapping[str, Any]) -> int:
        """Return how many attempts a job with these BullMQ `opts` gets in all, at least 1. Must not raise."""
        ...

    def delay(self, options: Mapping[str, Any], attempts_made: int, random: Random) -> float | None:
        """Return the seconds to wait after attempt number `attempts_made` failed; `None` when it was the last one."""
        ...


@dataclass(frozen=True)
class ScheduledRetry:
    """The shipped workers' table (docs/reference/retries.md): a number of attempts and the delays between them.

    The last delay repeats when attempts outnumber delays. With `honour_producer`, a job's own
    `attempts`, 1 to 20, wins.
    """

    max_attempts: int
    delays_seconds: tuple[float, ...]
    honour_producer: bool = False

    def attempts(self, options: Mapping[str, Any]) -> int:
        """See `RetryPolicy`."""
        asked = options.get("attempts")
        if self.honour_producer and isinstance(asked, int) and 1 <= asked <= MAX_HONOURED_ATTEMPTS:
            return asked
        return self.max_attempts

    def delay(self, options: Mapping[str, Any], attempts_made: int, random: Random) -> float | None:
        """See `RetryPolicy`."""
        if attempts_made >= self.attempts(options):
            return None
        base = self.delays_seconds[min(attempts_made, len(self.delays_seconds)) - 1]
        return base * random.uniform(1 - JITTER, 1 + JITTER)


@dataclass(frozen=True)
class JobOptionsRetry:
    """What Node's worker does: a job's own `attempts` and `backoff` hold. The engine's policy when used as a library.

    `strategies` are custom back-offs by the name in `backoff.type`: `(attempts_made, opts) -> milliseconds`, or `None`
    to give up. A back-off nobody knows is a dead letter at the next failure rather than a job that vanishes.
    """

    strategies: Mapping[str, Callable[[int, Mapping[str, Any]], float | None]] = field(default_factory=dict)

    def attempts(self, options: Mapping[str, Any]) -> int:
        """See `RetryPolicy`."""
        asked = options.get("attempts")
        # JSON's 1e999 is infinite, which no integer is; a job tried that often is tried for ever.
        return max(1, int(min(asked, MOST_ATTEMPTS))) if isinstance(asked, (int, float)) else 1

    def delay(self, options: Mapping[str, Any], attempts_made: int, random: Random) -> float | None:
        """See `RetryPolicy`."""
        if attempts_made >= self.attempts(options):
            return None
        backoff = options.get("backoff") or 0
        if isinstance(backoff, (int, float)):
            return backoff / 1000
        return self._named(backoff, options, attempts_made, random)

    def _named(self, backoff: Any, options: Mapping[str, Any], attempts_made: int, random: Random) -> float | None:
        # A producer may have written anything here, and a worker survives it.
        kind = backoff.get("type") if isinstance(backoff, dict) else None
        if isinstance(kind, str) and kind in self.strategies:
            custom = self.strategies[kind](attempts_made, options)
            return None if custom is None else custom / 1000
        if kind not in ("fixed", "exponential"):
            return None
        base, jitter = backoff.get("delay") or 0, backoff.get("jitter") or 0
        if not (isinstance(base, (int, float)) and isinstance(jitter, (int, float))):
            return None
        milliseconds = base if kind == "fixed" else base * 2 ** (attempts_made - 1)
        # Node's jitter: between (1 - jitter) and 1 of the delay.
        return float(milliseconds * (1 - jitter * random.random()) / 1000)
