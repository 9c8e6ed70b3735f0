"""A job as a handler sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Job(Generic[P]):
    """One attempt at one job.

    `payload` is the validated model (camelCase JSON on the wire). `attempt` counts from 1. `created_at` is the
    producer's clock in seconds since the epoch. `report_progress` writes BullMQ's `progress`, which Node's QueueEvents
    and bull-board show; it may be awaited any number of times and raises when Redis cannot be reached.
    """

    id: str
    name: str
    queue: str
    payload: P
    attempt: int
    created_at: float
    report_progress: Callable[[Any], Awaitable[None]]
