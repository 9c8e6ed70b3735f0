"""How a job ends: a closed set of values, and the one exception that names its own end.

The table "How a job ends" in docs/explanation/architecture.md is this module; `consumer.py` produces the values,
the queue engine settles them, and anything that is none of them is a bug that stops the process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Done:
    """Finished. `result` is JSON, under 4 KB, and becomes BullMQ's `returnvalue`. Costs the attempt."""

    result: Any = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Failed for now; the retry policy decides when, or that it was the last time. Costs an attempt.

    `floor` is the least number of seconds to wait (a server's `Retry-After`, greylisting): it stretches the policy's
    delay and never shortens it.
    """

    code: str
    reason: str
    floor: float = 0.0


@dataclass(frozen=True, slots=True)
class Defer:
    """Not this job's fault and not now: back to the delayed set for `seconds`. Costs no attempt.

    A job deferred for longer than `MAX_DEFER_AGE_MS` in all becomes a dead letter `DEFERRED_TOO_LONG`, unless it asked
    for the wait itself (`planned`: its `scheduledAt`).
    """

    code: str
    reason: str
    seconds: float
    planned: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing of this queue can run for `seconds`, for its only provider is out. Costs no attempt.

    The job returns to the head of `wait`, fetching stops until then, and the queue's depth shows the backlog.
    """

    code: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Never again: straight to the failed set, which is the dead-letter queue. Costs the attempt."""

    code: str
    reason: str


Outcome = Done | Retry | Defer | Hold | DeadLetter


class PermanentError(Exception):
    """Raised by a handler, from any depth, when trying again cannot help: the job becomes a dead letter at once.

    `code` is a stable upper-case word, `sentence` tells a person what to do and holds no personal data.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.sentence = sentence


def failed_reason(code: str, reason: str) -> str:
    """Write BullMQ's `failedReason`: the code first, so that failures can be grouped by it."""
    return f"{code}: {reason}"
