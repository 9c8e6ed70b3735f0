"""A job as a handler sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Children:
    """How the children of a flow's parent ended, by their Redis keys (`<prefix>:<queue>:<job id>`).

    `results` are what the completed ones returned, `failures` the reasons of those whose failure the parent was to
    ignore (`ignoreDependencyOnFailure`, `continueParentOnFailure`).
    """

    results: Mapping[str, Any]
    failures: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Job(Generic[P]):
    """One attempt at one job.

    `payload` is the validated model (camelCase JSON on the wire). `attempt` counts from 1. `created_at` is the
    producer's clock in seconds since the epoch. The last three may be awaited any number of times and raise when Redis
    cannot be reached: `report_progress` writes BullMQ's `progress` and `log` a line of the job's own log, which Node's
    QueueEvents and bull-board show; `children` reads how the children of a flow's parent ended.
    """

    id: str
    name: str
    queue: str
    payload: P
    attempt: int
    created_at: float
    report_progress: Callable[[Any], Awaitable[None]]
    log: Callable[[str], Awaitable[None]]
    children: Callable[[], Awaitable[Children]]
