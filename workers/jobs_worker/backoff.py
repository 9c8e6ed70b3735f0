"""The schedule by which every queue of the product retries, for tasks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING

from procrastinate import BaseRetryStrategy, RetryDecision

from worker_runtime.outcome import PermanentError
from worker_runtime.retry import ScheduledRetry
from worker_runtime.settings.queues import one_schedule

if TYPE_CHECKING:
    from procrastinate.jobs import Job

__all__ = ["Backoff"]

_random = Random()  # noqa: S311  spreads retries, protects nothing


class Backoff(BaseRetryStrategy):
    """`attempts` in all, after 1 s, 5 s, 30 s, then five times as long each time, each +-10 %.

    `PermanentError` is not tried again.
    """

    def __init__(self, attempts: int = 5) -> None:
        if attempts < 1:
            raise ValueError("a job has at least one attempt")
        # Procrastinate's word for retries, which whoever rescues stalled jobs reads.
        self.max_attempts = attempts - 1
        self._schedule = ScheduledRetry(attempts, tuple(delay / 1000 for delay in one_schedule()))

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """See Procrastinate. `job.attempts` are those before this one."""
        if isinstance(exception, PermanentError):
            return None
        seconds = self._schedule.delay({}, job.attempts + 1, _random)
        if seconds is None:
            return None
        # What the other side asked for stretches the schedule.
        floor = float(getattr(exception, "floor_seconds", 0.0))
        return RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=max(seconds, floor)))
