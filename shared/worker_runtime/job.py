"""A job as a handler sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Children:
    """How the children of a flow's parent ended, by their Redis keys (`<prefix>:<queue>:<job id>`).

    `results` are what the completed ones returned, `failures` the reasons of those whose failure the parent was to
    ignore (`ignoreDependencyOnFailure`, `continueParentOnFailure`).
    """

    results: Mapping[str, Any]
    failures: Mapping[str, str]


class Notes(Protocol):
    """What a job writes and reads in Redis while it runs; see `Job`."""

    async def report_progress(self, progress: Any) -> None:
        """Write the job's progress."""
        ...

    async def log(self, line: str) -> None:
        """Append to the job's log."""
        ...

    async def children(self) -> Children:
        """Read how the job's children ended."""
        ...

    async def still_ours(self) -> bool:
        """Tell whether nobody else has been given the job since."""
        ...


# Not frozen: that would make building one, which each job waits for, four times as slow.
@dataclass(slots=True, eq=False)
class Job(Generic[P]):
    """One attempt at one job.

    `payload` is the validated model (camelCase JSON on the wire). `attempt` counts from 1. `created_at` is the
    producer's clock in seconds since the epoch. Its methods may be awaited any number of times and raise when Redis
    cannot be reached.
    """

    id: str
    name: str
    queue: str
    payload: P
    attempt: int
    created_at: float
    notes: Notes

    async def report_progress(self, progress: Any) -> None:
        """Write BullMQ's `progress`, any JSON, which Node's QueueEvents and bull-board show."""
        await self.notes.report_progress(progress)

    async def log(self, line: str) -> None:
        """Append a line to the job's own log, which bull-board shows."""
        await self.notes.log(line)

    async def children(self) -> Children:
        """Read how the children of a flow's parent ended."""
        return await self.notes.children()

    async def still_ours(self) -> bool:
        """Tell whether nobody else has been given the job: to be asked before an effect by who may have been frozen."""
        return await self.notes.still_ours()
