"""What the doctor asks the jobs database. Cheap: what is not over has an index, and so has what ended lately."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker_ops.jobs.jobs_store import SILENT

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

WORKERS = (
    f"SELECT count(*) AS known, count(*) FILTER (WHERE NOT {SILENT}) AS alive FROM procrastinate_workers AS worker"
)
DOING = f"""
SELECT count(*) AS doing, count(*) FILTER (WHERE stalled) AS stalled, min(id) FILTER (WHERE stalled) AS a_stalled,
       count(*) FILTER (WHERE late AND NOT stalled) AS long, min(id) FILTER (WHERE late AND NOT stalled) AS a_long
  FROM (SELECT job.id, {SILENT} AS stalled, job.started_at < clock_timestamp() - make_interval(secs => $2) AS late
          FROM procrastinate_jobs AS job LEFT JOIN procrastinate_workers AS worker ON worker.id = job.worker_id
         WHERE job.status = 'doing') AS seen
"""
FAILED = """
SELECT (SELECT count(*) FROM procrastinate_jobs
         WHERE status = 'failed' AND finished_at > now() - interval '1 hour') AS last_hour,
       (SELECT count(*) FROM procrastinate_jobs
         WHERE status = 'failed' AND finished_at <= now() - interval '1 hour'
           AND finished_at > now() - interval '25 hours') AS day_before
"""
# What might run for that long and was not begun, by queue; and whether any job of the queue has been, meanwhile.
WAITING = """
SELECT queue_name AS queue, count(*) AS waiting,
       extract(epoch FROM now() - min(greatest(scheduled_at, created_at)))::float8 AS seconds, min(id) AS example,
       EXISTS (SELECT FROM procrastinate_jobs AS other
                WHERE other.queue_name = job.queue_name AND other.status = 'doing')
       OR EXISTS (SELECT FROM procrastinate_jobs AS other
                   WHERE other.queue_name = job.queue_name AND other.status IN ('succeeded', 'failed', 'aborted')
                     AND other.finished_at > now() - make_interval(secs => $1)) AS worked
  FROM procrastinate_jobs AS job
 WHERE status = 'todo' AND coalesce(scheduled_at, created_at) < now() - make_interval(secs => $1)
   AND created_at < now() - make_interval(secs => $1)
 GROUP BY queue_name ORDER BY seconds DESC
"""


class JobsView:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def workers(self, silence: float) -> dict[str, Any]:
        """Count the workers that are `known`, and the `alive` among them: heard of within so many seconds."""
        return (await self._rows(WORKERS, silence))[0]

    async def doing(self, silence: float, seconds: float) -> dict[str, Any]:
        """Count what is at work: `stalled` has lost its worker, `long` is older than that; `a_long` is one."""
        return (await self._rows(DOING, silence, seconds))[0]

    async def failed(self) -> dict[str, Any]:
        """Count failures of the `last_hour`, and of the `day_before` it."""
        return (await self._rows(FAILED))[0]

    async def waiting(self, seconds: float) -> list[dict[str, Any]]:
        """Return queues with jobs that could have run for so long, the longest first, and whether each is `worked`."""
        return await self._rows(WAITING, seconds)

    async def _rows(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        async with self._database.connected() as connection:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
