"""When a failed job is tried again: pure decisions, taken by the consumer and carried out by the queue engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

JITTER = 0.10
MAX_HONOURED_ATTEMPTS = 20
# Milliseconds; far more than anybody waits, far less than what Redis and Lua lose digits of.
LARGEST_NUMBER = 10.0**13
MOST_DOUBLINGS = 50


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
    """The shipped workers' table, RETRY_<QUEUE>_*: a number of attempts and the delays between them.

    The last delay repeats when attempts outnumber delays. With `honour_producer`, a job's own
    `attempts`, 1 to 20, wins.
    """

    max_attempts: int
    delays_seconds: tuple[float, ...]
    honour_producer: bool = False

    def attempts(self, options: Mapping[str, Any]) -> int:
        """See `RetryPolicy`."""
        asked = options.get("attempts")
        if self.honour_producer and type(asked) is int and 1 <= asked <= MAX_HONOURED_ATTEMPTS:
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
    (or, as in Node, -1) to give up. A back-off nobody knows is a dead letter at the next failure rather than a job that
    vanishes.
    """

    strategies: Mapping[str, Callable[[int, Mapping[str, Any]], float | None]] = field(default_factory=dict)

    def attempts(self, options: Mapping[str, Any]) -> int:
        """See `RetryPolicy`."""
        return max(1, int(sane_number(options.get("attempts")) or 1))

    def delay(self, options: Mapping[str, Any], attempts_made: int, random: Random) -> float | None:
        """See `RetryPolicy`."""
        if attempts_made >= self.attempts(options):
            return None
        backoff = options.get("backoff") or 0
        if (milliseconds := sane_number(backoff)) is not None:
            return milliseconds / 1000
        return self._named(backoff, options, attempts_made, random)

    def _named(self, backoff: Any, options: Mapping[str, Any], attempts_made: int, random: Random) -> float | None:
        if not isinstance(backoff, dict):
            return None
        kind = backoff.get("type")
        if isinstance(kind, str) and kind in self.strategies:
            custom = self.strategies[kind](attempts_made, options)
            return None if custom is None or custom < 0 else custom / 1000
        base, jitter = sane_number(backoff.get("delay") or 0), sane_number(backoff.get("jitter") or 0)
        if kind not in ("fixed", "exponential") or base is None or jitter is None:
            return None
        milliseconds = base if kind == "fixed" else base * 2.0 ** min(attempts_made - 1, MOST_DOUBLINGS)
        # Node's jitter: between (1 - jitter) and 1 of the delay.
        return min(milliseconds, LARGEST_NUMBER) * (1 - min(jitter, 1.0) * random.random()) / 1000


def sane_number(written: Any) -> float | None:
    """Read a number that a producer wrote into a job's options, where JSON allows anything: 1e999, a text, a list.

    `None` for what is no number; below 0 counts as 0, and beyond three hundred years as that.
    """
    if isinstance(written, bool) or not isinstance(written, (int, float)) or written != written:  # noqa: PLR0124  NaN
        return None
    return float(max(0, min(written, LARGEST_NUMBER)))
