"""Jobs that events defer, in the database of the side effects: each once, by its key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import asyncpg

from worker_runtime.postgres import DatabaseUnavailable, storable, storable_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from events_worker.effects import PlannedDeferral
    from worker_runtime.postgres import Database

__all__ = ["DeferralStore", "JobRefused"]

DEFER = """
SELECT jobs_ops.defer_once(key, row(queue, task, priority, lock, NULL, arguments,
                                    CASE WHEN delay > 0 THEN now() + make_interval(secs => delay) END
                                   )::procrastinate_job_to_defer_v1)
  FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::jsonb[], $7::integer[])
       AS asked (key, queue, task, priority, lock, arguments, delay)
"""
# A database that has not been migrated yet, or lets this user do nothing: no event's fault, and soon put right.
UNPREPARED = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
    asyncpg.UndefinedTableError,
)
REFUSALS = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)


class JobRefused(Exception):
    """The database does not take such a job, and never will; quotes nothing of the event."""


class DeferralStore:
    """Raises `DatabaseUnavailable` for what time may cure, and may be repeated."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def defer(self, jobs: Sequence[PlannedDeferral]) -> None:
        """Defer them in one commit or none; those that were deferred before are left as they are.

        Raises `JobRefused` when one of them is refused, without saying which.
        """
        # In order, so that processes that defer the same wait for each other instead of deadlocking.
        rows = [_row(job) for job in sorted(jobs, key=lambda job: job.id)]
        async with self._database.connected() as connection:
            try:
                await connection.fetch(DEFER, *zip(*rows, strict=True))
            except UNPREPARED as error:
                raise DatabaseUnavailable(
                    f"the jobs database is not prepared: run ./scripts/jobs/apply-schema.sh ({type(error).__name__})"
                ) from error
            except REFUSALS as error:
                raise JobRefused(f"the jobs database refuses it: {type(error).__name__}") from error


def _row(job: PlannedDeferral) -> tuple[str, str, str, int, str | None, str, int]:
    lock = None if job.lock is None else storable(job.lock)
    arguments = json.dumps(storable_json(job.arguments))
    return job.id, storable(job.queue), storable(job.task), job.priority, lock, arguments, job.delay_seconds
