"""How one queue is worked, and what is counted meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from worker_runtime.bullmq.leases import LeaseCounters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_runtime.bullmq.scripts import Limit

DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How one queue is worked. Retention applies where a job's own options say nothing.

    `reserve` is how many jobs that were added `lifo`, as urgent ones are, may run beyond `concurrency` when others hold
    all slots. `metrics_minutes` is how far back BullMQ's own counters go, Node's `getMetrics` (0: nobody counts).
    """

    concurrency: int = 10
    reserve: int = 0
    lock_ms: int = 10_000
    renew_seconds: float = 2.0
    stalled_interval_ms: int = 2_500
    max_stalls: int = 2
    metrics_minutes: int = 0
    limit: Limit | None = None
    worker: str = "worker"
    keep_completed: Mapping[str, int] = field(default_factory=lambda: {"age": DAY_SECONDS, "count": 100_000})
    keep_failed: Mapping[str, int] = field(default_factory=lambda: {"age": 30 * DAY_SECONDS})


class EngineCounters(LeaseCounters, Protocol):
    """The metrics an engine moves."""

    def handed_back(self, jobs: int) -> None:
        """Count jobs returned to `wait` because this process stops."""
        ...
