"""A job in hand, and the ways in which an attempt ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from procrastinate.jobs import Job

__all__ = ["Claimed", "Ending", "Later", "WorkerGone"]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job that this worker holds. `started_at` is its token: nobody else has the job under the same."""

    job: Job
    started_at: datetime
    # Seconds for which it could have run.
    waited: float

    @property
    def id(self) -> int:
        """The job's id."""
        assert self.job.id is not None  # noqa: S101  it comes from a row
        return self.job.id


@dataclass(frozen=True, slots=True)
class Ending:
    """`status` as in procrastinate_jobs; `todo` means again, at `retry_at`.

    `costs` is false when the attempt does not count. `error` and `error_traceback` become an event of the job.
    """

    status: str
    costs: bool = True
    retry_at: datetime | None = None
    priority: int | None = None
    queue: str | None = None
    lock: str | None = None
    error: str | None = None
    error_traceback: str | None = None


class Later(Exception):
    """Raised by a task that cannot do its work now, through no fault of the job's: it costs no attempt."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


class WorkerGone(Exception):
    """The database has given this worker up, and its jobs with it."""
