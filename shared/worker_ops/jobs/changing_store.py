"""What an operator does to jobs. SQL of `intelliflow jobs retry`, `retry-all`, `cancel` and `purge`.

Each call is one short transaction. A job that is `todo` again has another `started_at` when it is begun, so whoever had
it cannot settle it any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from worker_ops.jobs.jobs_store import SILENT
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from worker_ops.jobs.jobs_store import Selection
    from worker_runtime.postgres import Database

__all__ = ["CHUNK", "ENDED", "ChangingStore", "LockTaken", "Place", "Purged"]

# By the database a thousand updates take a tenth of a second, with their events and notifications.
CHUNK = 500
# Jobs of the same queueing lock may be deferred while we look.
STUBBORN = 5
# Whoever asks again asks for all attempts of the task. Procrastinate's trigger has words for some changes only.
AGAIN = """
), again AS (
    UPDATE procrastinate_jobs AS job SET status = 'todo', attempts = 0, stalls = 0, scheduled_at = NULL
      FROM chosen WHERE job.id = chosen.id
    RETURNING job.id
), said AS (
    INSERT INTO procrastinate_events (job_id, type)
    SELECT id, 'retried' FROM chosen WHERE status NOT IN ('failed', 'doing')
)
"""
RETRY = f"""
WITH chosen AS MATERIALIZED (
    SELECT job.id, job.status
      FROM procrastinate_jobs AS job LEFT JOIN procrastinate_workers AS worker ON worker.id = job.worker_id
     WHERE job.id = $2 AND (job.status IN ('failed', 'aborted', 'cancelled') OR (job.status = 'succeeded' AND $3)
                            OR (job.status = 'doing' AND {SILENT}))
       FOR UPDATE OF job
{AGAIN}
SELECT id FROM again
"""
# Of those that only one at a time may wait, the first does, and none beside one that waits already.
RETRY_PAGE = f"""
WITH page AS MATERIALIZED (
    SELECT job.id, job.status, job.finished_at, job.queueing_lock FROM procrastinate_jobs AS job
     WHERE {{conditions}} AND (job.finished_at, job.id) > ($1::timestamptz, $2::bigint)
     ORDER BY job.finished_at, job.id LIMIT {CHUNK} FOR UPDATE SKIP LOCKED
), chosen AS MATERIALIZED (
    SELECT id, status FROM page WHERE queueing_lock IS NULL
     UNION ALL
    (SELECT DISTINCT ON (queueing_lock) id, status FROM page
      WHERE queueing_lock IS NOT NULL
        AND NOT EXISTS (SELECT FROM procrastinate_jobs AS other
                         WHERE other.queueing_lock = page.queueing_lock AND other.status = 'todo')
      ORDER BY queueing_lock, id)
{AGAIN}
SELECT (SELECT count(*) FROM page) AS looked_at, (SELECT count(*) FROM again) AS changed, finished_at, id
  FROM page ORDER BY finished_at DESC, id DESC LIMIT 1
"""
CANCEL = "SELECT procrastinate_cancel_job_v1($1, true, false)"
STATUS = "SELECT status::text FROM procrastinate_jobs WHERE id = $1"
# In the order in which they ended, and never again over what is deleted but not yet cleaned away. Their events first,
# all at once: the foreign key would look for those of each job by itself.
PURGE = """
WITH chosen AS MATERIALIZED (
    SELECT id, finished_at FROM procrastinate_jobs
     WHERE status = $1::procrastinate_job_status AND finished_at >= $2 AND finished_at < $3
     ORDER BY finished_at LIMIT $4 FOR UPDATE SKIP LOCKED
), without_events AS (
    DELETE FROM procrastinate_events WHERE job_id IN (SELECT id FROM chosen)
), deleted AS (
    DELETE FROM procrastinate_jobs WHERE id IN (SELECT id FROM chosen) RETURNING id
)
SELECT (SELECT count(*) FROM deleted) AS deleted, max(finished_at) AS latest FROM chosen
"""
# A stretch of the table at a time, by its key: no count is a long statement, however many there are.
STRETCH = 20_000
ENDED = ("succeeded", "cancelled", "aborted", "failed")
COUNTED = ",\n       ".join(f"count(*) FILTER (WHERE status = '{one}' AND finished_at < $2) AS {one}" for one in ENDED)
COUNT = f"""
SELECT max(id) AS last, {COUNTED}
  FROM (SELECT id, status, finished_at FROM procrastinate_jobs WHERE id > $1 ORDER BY id LIMIT {STRETCH}) AS stretch
"""


class LockTaken(Exception):
    """A job with the same queueing lock waits already, and only one may."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a walk over failed jobs has come: the last one was `looked_at` with others, and some were `changed`."""

    finished_at: datetime
    id: int
    looked_at: int
    changed: int


@dataclass(frozen=True, slots=True)
class Purged:
    """How many jobs were deleted; `latest` is when the last of them ended, `None` when there was none left."""

    deleted: int
    latest: datetime | None


class ChangingStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def retry(self, job: int, silence: float, *, force: bool) -> bool:
        """Let a job begin again, unless a worker that lives has it; `force`: though it has succeeded.

        Raises `LockTaken`.
        """
        try:
            async with self._database.connected() as connection:
                return await connection.fetchval(RETRY, silence, job, force) is not None
        except DatabaseUnavailable as error:
            if isinstance(error.__cause__, asyncpg.UniqueViolationError):
                raise LockTaken(str(job)) from error
            raise

    async def retry_page(self, selection: Selection, after: tuple[datetime, int]) -> Place | None:
        """Let the next page of what has failed begin again; `None` when there is no more."""
        conditions, parameters = selection.conditions(3)
        statement = RETRY_PAGE.format(conditions=conditions)
        for _ in range(STUBBORN):
            try:
                return await self._retried(statement, *after, *parameters)
            except DatabaseUnavailable as error:
                if not isinstance(error.__cause__, asyncpg.UniqueViolationError):
                    raise
        return await self._retried(statement, *after, *parameters)

    async def cancel(self, job: int) -> str | None:
        """Cancel a job that waits, ask a worker to end the one it has; return its status then, `None`: it is over."""
        async with self._database.transaction() as connection:
            if await connection.fetchval(CANCEL, job) is None:
                return None
            status: str = await connection.fetchval(STATUS, job)
            return status

    async def purge(self, status: str, since: datetime, before: datetime, most: int) -> Purged:
        """Delete up to `most` jobs that ended so between then and then, those first that ended first."""
        async with self._database.connected() as connection:
            return Purged(*tuple((await connection.fetchrow(PURGE, status, since, before, most)).values()))

    async def ended(self, statuses: Sequence[str], before: datetime) -> dict[str, int]:
        """Count jobs by how they ended, in some of `ENDED`, before then."""
        counts, last = dict.fromkeys(statuses, 0), 0
        while True:
            async with self._database.connected() as connection:
                stretch = await connection.fetchrow(COUNT, last, before)
            if stretch["last"] is None:
                return counts
            counts = {status: count + stretch[status] for status, count in counts.items()}
            last = stretch["last"]

    async def _retried(self, statement: str, *arguments: Any) -> Place | None:
        async with self._database.connected() as connection:
            row = await connection.fetchrow(statement, *arguments)
        return row and Place(row["finished_at"], row["id"], row["looked_at"], row["changed"])
