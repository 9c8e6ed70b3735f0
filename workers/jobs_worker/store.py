"""The only SQL of the jobs-worker. What it calls is in infra/postgres-jobs and in Procrastinate's own schema."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from procrastinate.jobs import Job

from jobs_worker.ending import Claimed, WorkerGone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpg import Record

    from jobs_worker.ending import Ending
    from worker_runtime.postgres import Database

__all__ = ["JobStore", "QueueDepth", "Rescued"]

IS_CURRENT = "SELECT to_regproc('jobs_ops.rescue') IS NOT NULL AND to_regclass('procrastinate_jobs') IS NOT NULL"
REGISTER = "SELECT worker_id FROM procrastinate_register_worker_v1()"
LEAVE = "SELECT procrastinate_unregister_worker_v1($1)"
FIELDS = "id, queue_name, task_name, priority, lock, queueing_lock, args, attempts, scheduled_at, started_at"
WAITED = "extract(epoch FROM started_at - greatest(scheduled_at, created_at))::float AS waited"
CLAIM = f"SELECT {FIELDS}, {WAITED} FROM jobs_ops.claim($1, $2, $3)"  # noqa: S608  constants
# What a claim gave us whose answer was lost.
FOUND = f"""
SELECT {FIELDS}, {WAITED} FROM procrastinate_jobs WHERE worker_id = $1 AND status = 'doing' AND id <> ALL ($2::bigint[])
"""  # noqa: S608
SETTLE = """
SELECT jobs_ops.settle($1, (SELECT array_agg(row(id, started_at, status, costs, retry_at, priority, queue, lock, error,
                                                 error_traceback)::jobs_ops.ending)
  FROM unnest($2::bigint[], $3::timestamptz[], $4::procrastinate_job_status[], $5::boolean[], $6::timestamptz[],
              $7::integer[], $8::varchar[], $9::varchar[], $10::text[], $11::text[])
       AS given (id, started_at, status, costs, retry_at, priority, queue, lock, error, error_traceback)))
"""
BEAT = "UPDATE procrastinate_workers SET last_heartbeat = clock_timestamp() WHERE id = $1 RETURNING id"
HELD = """
SELECT id, started_at, abort_requested FROM procrastinate_jobs WHERE worker_id = $1 AND status = 'doing'
"""
RESCUE = """
SELECT id, queue_name, task_name, status FROM jobs_ops.rescue(make_interval(secs => $1), $2, $3::jsonb, $4)
"""
PRUNE = "SELECT count(*) FROM procrastinate_prune_stalled_workers_v1($1)"
PURGE = "SELECT jobs_ops.purge($1, now() - make_interval(days => $2), $3)"
FORGET_KEYS = """
WITH forgotten AS (
    DELETE FROM jobs_ops.deferrals WHERE key IN (
        SELECT key FROM jobs_ops.deferrals WHERE at < now() - make_interval(days => $1) ORDER BY at LIMIT $2)
    RETURNING 1
) SELECT count(*) FROM forgotten
"""
DEPTHS = """
SELECT queue_name, count(*) FILTER (WHERE status = 'todo' AND coalesce(scheduled_at, now()) <= now()) AS waiting,
       count(*) FILTER (WHERE status = 'todo' AND scheduled_at > now()) AS later,
       count(*) FILTER (WHERE status = 'doing') AS doing, count(*) FILTER (WHERE status = 'failed') AS failed,
       coalesce(extract(epoch FROM now() - min(greatest(scheduled_at, created_at))
                FILTER (WHERE status = 'todo' AND coalesce(scheduled_at, now()) <= now())), 0)::float AS oldest_seconds
  FROM (SELECT queue_name, status, scheduled_at, created_at FROM procrastinate_jobs WHERE status = 'todo'
        UNION ALL SELECT queue_name, status, NULL, created_at FROM procrastinate_jobs WHERE status = 'doing'
        UNION ALL SELECT queue_name, status, NULL, created_at FROM procrastinate_jobs WHERE status = 'failed') AS jobs
 GROUP BY queue_name
"""


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many jobs of a queue are where; `oldest_seconds` is how long the oldest of `waiting` could have run."""

    waiting: int = 0
    later: int = 0
    doing: int = 0
    failed: int = 0
    oldest_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Rescued:
    """A job whose worker had vanished. `status` is what became of it: todo, failed or aborted."""

    id: int
    queue: str
    task: str
    status: str


class JobStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def is_current(self) -> bool:
        """Tell whether `intelliflow jobs migrate` has made what this release needs."""
        return bool(await self._value(IS_CURRENT))

    async def register(self) -> int:
        """Be a worker: return its id."""
        return int(await self._value(REGISTER))

    async def leave(self, worker: int) -> None:
        """Be one no more. Whatever it still holds is stalled from now on."""
        await self._value(LEAVE, worker)

    async def claim(self, queues: Sequence[str] | None, worker: int, most: int) -> list[Claimed]:
        """Take up to `most` jobs that may run; `queues` of `None` are all."""
        async with self._database.connected() as connection:
            return [_claimed(row) for row in await connection.fetch(CLAIM, queues, worker, most)]

    async def found(self, worker: int, known: Sequence[int]) -> list[Claimed]:
        """Return what the worker holds beside the `known`."""
        async with self._database.connected() as connection:
            return [_claimed(row) for row in await connection.fetch(FOUND, worker, known)]

    async def settle(self, worker: int, endings: Sequence[tuple[Claimed, Ending]]) -> set[int]:
        """Write how attempts ended; return the ids of those that were still the worker's, now or before."""
        rows = [(claimed.id, claimed.started_at, *astuple(ending)) for claimed, ending in endings]
        async with self._database.connected() as connection:
            return {row[0] for row in await connection.fetch(SETTLE, worker, *zip(*rows, strict=True))}

    async def beat(self, worker: int) -> dict[int, bool]:
        """Say that the worker lives, and return what it holds: ids, with whether somebody wants it aborted.

        Raises `WorkerGone` when it was given up.
        """
        async with self._database.connected() as connection:
            if await connection.fetchval(BEAT, worker) is None:
                raise WorkerGone(str(worker))
            return {row["id"]: row["abort_requested"] for row in await connection.fetch(HELD, worker)}

    async def rescue(self, silence: float, most_stalls: int, limits: Mapping[str, int], most: int) -> list[Rescued]:
        """Take jobs from workers that have been silent for so many seconds. `limits` are retries by task."""
        async with self._database.connected() as connection:
            rows = await connection.fetch(RESCUE, silence, most_stalls, json.dumps(limits), most)
            return [Rescued(*row.values()) for row in rows]

    async def prune(self, silence: float) -> int:
        """Forget workers that have been silent for so many seconds; return how many."""
        return int(await self._value(PRUNE, silence))

    async def purge(self, status: str, days: int, most: int) -> int:
        """Delete up to `most` jobs that ended so more than `days` ago; return how many."""
        return int(await self._value(PURGE, status, days, most))

    async def forget_keys(self, days: int, most: int) -> int:
        """Forget up to `most` keys of `defer_once` that are older than `days`; return how many."""
        return int(await self._value(FORGET_KEYS, days, most))

    async def depths(self) -> dict[str, QueueDepth]:
        """Count every queue that has something to do, or failures."""
        async with self._database.connected() as connection:
            return {row[0]: QueueDepth(*tuple(row.values())[1:]) for row in await connection.fetch(DEPTHS)}

    async def _value(self, statement: str, *arguments: Any) -> Any:
        async with self._database.connected() as connection:
            return await connection.fetchval(statement, *arguments)


def _claimed(row: Record) -> Claimed:
    job = Job(
        id=row["id"],
        status="doing",
        queue=row["queue_name"],
        priority=row["priority"],
        lock=row["lock"],
        queueing_lock=row["queueing_lock"],
        task_name=row["task_name"],
        task_kwargs=json.loads(row["args"]),
        scheduled_at=row["scheduled_at"],
        attempts=row["attempts"],
    )
    return Claimed(job, row["started_at"], max(0.0, row["waited"]))
