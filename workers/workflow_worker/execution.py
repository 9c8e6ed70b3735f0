"""An execution as a worker holds it, and every way in which its turn can end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

__all__ = [
    "MOST_CRASHES",
    "Cancelled",
    "Completed",
    "Ending",
    "EventWait",
    "Execution",
    "Failing",
    "Lease",
    "LeaseLost",
    "Released",
    "StepRecord",
    "StepRetry",
    "Suspended",
]

# The common schedule of the product: 1 s, 5 s, 30 s, then five times as long each.
ATTEMPTS = 5
DELAYS_SECONDS = (1.0, 5.0, 30.0, 150.0)
# A worker that vanishes while it runs an execution is bad luck once, and twice. Then it is the execution.
MOST_CRASHES = 3


class LeaseLost(Exception):
    """Somebody else has the execution, or it is over: nothing may be written for it any more."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write for an execution, for as long as nobody has taken a newer token."""

    execution_id: UUID
    token: int


@dataclass(frozen=True, slots=True)
class StepRetry:
    """How often a step is tried in all, and the seconds between tries; the last delay repeats."""

    attempts: int = ATTEMPTS
    delays_seconds: tuple[float, ...] = DELAYS_SECONDS


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One line of the journal, as it is stored.

    `output` is of a completed step its result; of a waiting one what it waits for; of a failed one `{"final": true}`
    when it is not to be tried again.
    """

    step: str
    kind: str
    status: Literal["completed", "failed", "waiting"]
    output: Any
    started_at: datetime
    finished_at: datetime | None = None
    attempt: int = 1
    error: str | None = None


@dataclass(frozen=True, slots=True)
class EventWait:
    """A step that waits for a signal of this name and correlation, newer than `after_signal`."""

    step: str
    event: str
    correlation: str
    after_signal: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """A signal that has come for a step that waits."""

    signal_id: int
    payload: Any


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How an execution ended that a step has started."""

    status: Literal["completed", "failed", "cancelled"]
    result: Any
    error: str | None


@dataclass(frozen=True, slots=True)
class Execution:
    """What a claim brings: everything needed to go on where the journal ends. Times are the database's.

    `waited_seconds` passed since it was due, where this is its first claim. `records` are oldest first: whatever was
    completed, and the failures of this round. `deliveries` are by step, `children`, those that have ended, by ids.
    `unreadable` says what of it cannot be read, and why.
    """

    lease: Lease
    organization_id: str
    rule_id: UUID | None
    rule_version: int | None
    workflow: str | None
    workflow_version: int | None
    input: Any
    created_at: datetime
    claimed_at: datetime
    visibility_seconds: int
    waited_seconds: float | None = None
    round: int = 0
    retry_count: int = 0
    total_attempts: int = 0
    crash_count: int = 0
    cancel_requested: bool = False
    trace: str | None = None
    parent_id: UUID | None = None
    records: Sequence[StepRecord] = ()
    deliveries: Mapping[str, Delivery] = field(default_factory=dict)
    children: Mapping[str, ChildEnd] = field(default_factory=dict)
    unreadable: str | None = None

    @property
    def id(self) -> UUID:
        """The execution's."""
        return self.lease.execution_id

    @property
    def is_suspect(self) -> bool:
        """Whether it is not run again, should its worker vanish once more."""
        return self.crash_count == MOST_CRASHES - 1


@dataclass(frozen=True, slots=True)
class Completed:
    """The workflow has returned; `result` is JSON."""

    result: Any


@dataclass(frozen=True, slots=True)
class Failing:
    """An attempt failed: tried again after `seconds`, or never again when that is `None`. Costs the attempt."""

    error: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Suspended:
    """Waits, holding no slot: until a time (`None`: for ever), or until one of `waits` is met. Costs nothing."""

    until: datetime | None
    waits: Sequence[EventWait] = ()


@dataclass(frozen=True, slots=True)
class Released:
    """Given back, to go on after `seconds`: an outage, a pause, a stop. Costs nothing; `reason` is for people."""

    reason: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody asked for it."""

    reason: str


Ending = Completed | Failing | Suspended | Released | Cancelled
