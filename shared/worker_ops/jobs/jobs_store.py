"""Jobs as an operator finds them. SQL of the verbs of `intelliflow jobs` that change nothing.

Conditions are put together from constants, one for each thing that was asked for: a condition that may be switched off
by its parameter has no index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from worker_runtime.postgres import Database

__all__ = ["MOST_EVENTS", "SILENT", "JobsStore", "Selection"]

MOST_EVENTS = 200
# A worker that has not been heard of for $1 seconds, or that was forgotten.
SILENT = "(worker.id IS NULL OR worker.last_heartbeat < clock_timestamp() - make_interval(secs => $1))"
LAST_ERROR = """(SELECT event.error FROM procrastinate_events AS event
         WHERE event.job_id = job.id AND event.type = 'error' ORDER BY event.id DESC LIMIT 1)"""
NAMES = {"queue": "job.queue_name", "task": "job.task_name"}
DUE = "coalesce(job.scheduled_at, now()) <= now()"
COUNTS = f"""
SELECT {{name}} AS name,
       count(*) FILTER (WHERE job.status = 'todo' AND {DUE}) AS waiting,
       count(*) FILTER (WHERE job.status = 'todo' AND NOT {DUE}) AS later,
       count(*) FILTER (WHERE job.status = 'doing') AS doing,
       count(*) FILTER (WHERE job.status = 'doing' AND job.started_at < now() - interval '5 minutes') AS long,
       count(*) FILTER (WHERE job.status = 'doing' AND {SILENT}) AS stalled,
       count(*) FILTER (WHERE job.status = 'succeeded') AS succeeded,
       count(*) FILTER (WHERE job.status = 'failed') AS failed,
       count(*) FILTER (WHERE job.status = 'cancelled') AS cancelled,
       count(*) FILTER (WHERE job.status IN ('aborted', 'aborting')) AS aborted,
       count(*) FILTER (WHERE job.status = 'succeeded' AND job.finished_at > now() - interval '1 hour') AS done_lately,
       count(*) FILTER (WHERE job.status = 'failed' AND job.finished_at > now() - interval '1 hour') AS failed_lately,
       avg(extract(epoch FROM job.finished_at - job.started_at))
           FILTER (WHERE job.status = 'succeeded' AND job.finished_at > now() - interval '1 hour')::float8 AS seconds,
       extract(epoch FROM now() - min(greatest(job.scheduled_at, job.created_at))
               FILTER (WHERE job.status = 'todo' AND {DUE}))::float8 AS oldest
  FROM procrastinate_jobs AS job LEFT JOIN procrastinate_workers AS worker ON worker.id = job.worker_id
 GROUP BY 1 ORDER BY 1
"""
WORKERS = f"""
SELECT worker.id, worker.last_heartbeat, NOT {SILENT} AS alive,
       (SELECT count(*) FROM procrastinate_jobs AS job WHERE job.worker_id = worker.id AND job.status = 'doing')
           AS doing,
       (SELECT min(job.started_at) FROM procrastinate_jobs AS job
         WHERE job.worker_id = worker.id AND job.status = 'doing') AS oldest
  FROM procrastinate_workers AS worker ORDER BY worker.id
"""
ONE = f"""
SELECT job.id, job.queue_name, job.task_name, job.status::text, job.attempts, job.priority, job.lock,
       job.queueing_lock, job.args, job.created_at, job.scheduled_at, job.started_at, job.finished_at, job.stalls,
       job.abort_requested, job.worker_id, worker.last_heartbeat, NOT {SILENT} AS alive,
       (SELECT min(deferral.key) FROM jobs_ops.deferrals AS deferral WHERE deferral.job_id = job.id) AS key,
       extract(epoch FROM clock_timestamp() - job.started_at)::float8 AS running_seconds,
       extract(epoch FROM clock_timestamp() - worker.last_heartbeat)::float8 AS silent_seconds
  FROM procrastinate_jobs AS job LEFT JOIN procrastinate_workers AS worker ON worker.id = job.worker_id
 WHERE job.id = $2
"""
EVENTS = f"""
SELECT at, type, attempt, error, error_traceback
  FROM (SELECT id, at, type::text, attempt, error, error_traceback FROM procrastinate_events
         WHERE job_id = $1 ORDER BY id DESC LIMIT {MOST_EVENTS + 1}) AS latest ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """Jobs that have failed, by what they are; `None` is any. Times are when they failed."""

    queue: str | None = None
    task: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self, first: int) -> tuple[str, list[object]]:
        """Return SQL about `job`, and its parameters from number `first` on."""
        asked = [
            ("job.queue_name = {}", self.queue),
            ("job.task_name = {}", self.task),
            (f"position(lower({{}}) IN lower({LAST_ERROR})) > 0", self.error),
            ("job.finished_at >= {}", self.since),
            ("job.finished_at <= {}", self.until),
        ]
        given = [(condition, value) for condition, value in asked if value is not None]
        parts = [condition.format(f"${number}") for number, (condition, _) in enumerate(given, first)]
        return " AND ".join(["job.status = 'failed'", *parts]), [value for _, value in given]


def newest(selection: Selection) -> tuple[str, list[object]]:
    """Return the statement for the latest failures, without its LIMIT, which is the first parameter."""
    conditions, parameters = selection.conditions(2)
    return (
        f"""
SELECT job.id, job.queue_name, job.task_name, job.attempts, job.created_at, job.finished_at, {LAST_ERROR} AS error
  FROM procrastinate_jobs AS job
 WHERE {conditions} ORDER BY job.finished_at DESC, job.id DESC LIMIT $1
""",
        parameters,
    )


def groups(selection: Selection, *, kinds: bool) -> tuple[str, list[object]]:
    """Return the statement that counts failures by queue and task, and by the kind of error if asked for."""
    conditions, parameters = selection.conditions(1)
    kind = f", split_part({LAST_ERROR}, ':', 1) AS kind" if kinds else ""
    names = "queue_name, task_name" + (", kind" if kinds else "")
    return (
        f"""
SELECT {names}, count(*) AS count, min(finished_at) AS oldest, max(finished_at) AS newest, max(id) AS example
  FROM (SELECT job.id, job.queue_name, job.task_name, job.finished_at{kind}
          FROM procrastinate_jobs AS job WHERE {conditions}) AS found
 GROUP BY {names} ORDER BY count DESC, {names}
""",
        parameters,
    )


class JobsStore:
    """Every method raises `DatabaseUnavailable` for what time may cure. Rows have the names of their columns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self) -> datetime:
        """Return the database's time, by which jobs end."""
        async with self._database.connected() as connection:
            moment: datetime = await connection.fetchval("SELECT clock_timestamp()")
        return moment

    async def counts(self, name: str, silence: float) -> list[Any]:
        """Count all jobs by queue or by task, `name` says which; a worker is gone after `silence` seconds."""
        return await self._rows(COUNTS.format(name=NAMES[name]), silence)

    async def workers(self, silence: float) -> list[Any]:
        """Return every worker that is not forgotten yet, and what it has."""
        return await self._rows(WORKERS, silence)

    async def newest(self, selection: Selection, limit: int) -> list[Any]:
        """Return what has failed, the latest first."""
        statement, parameters = newest(selection)
        return await self._rows(statement, limit, *parameters)

    async def groups(self, selection: Selection, *, kinds: bool = False) -> list[Any]:
        """Count what has failed by queue and task, with `kinds` by what its last error begins with, too."""
        statement, parameters = groups(selection, kinds=kinds)
        return await self._rows(statement, *parameters)

    async def one(self, job: int, silence: float) -> Any | None:
        """Return everything of one job; `None` when there is none."""
        rows = await self._rows(ONE, silence, job)
        return rows[0] if rows else None

    async def events(self, job: int) -> Sequence[Any]:
        """Return what happened to it, at most the latest `MOST_EVENTS` and one more."""
        return await self._rows(EVENTS, job)

    async def _rows(self, statement: str, *arguments: object) -> list[Any]:
        async with self._database.connected() as connection:
            return list(await connection.fetch(statement, *arguments))
