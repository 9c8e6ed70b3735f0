"""The schema `cron` where it is our own: who ticks, which jobs there are, and a run of one of them.

A due time of a job is run by whoever moves `cron.tick` on to it, and a job runs once at a time because its run holds a
lock of its connection: both hold however many processes think that it is they who tick.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import asyncpg

from worker_runtime.postgres import Database, storable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from datetime import datetime

__all__ = ["CronStore", "Job", "NotOurs", "Ran"]

APPLICATION = "workflow-worker cron"
# Whose lead this is; without renewal it ends.
LEAD_SECONDS = 10
COMMAND_SECONDS = 3600
# The server has a limit of its own, which a command may change; a server that is gone is found out by the kernel.
ANSWER_SECONDS = 7 * 86_400
KEEP_DAYS, KEEP_RUNS, CHUNK = 7, 10_000, 1_000
MOST_MESSAGE = 10_000
# Whoever sends this has to send or take the data, too: the driver would wait for that in vain.
COPY = re.compile(r"(?:^|;)(?:\s|--[^\n]*\n|/\*.*?\*/)*copy\b[^;]*\b(?:stdin|stdout)\b", re.IGNORECASE | re.DOTALL)
SETTINGS = {
    # The command of a worker that was killed ends soon, and with it what it has locked.
    "client_connection_check_interval": "2000",
    # And so does what a command or a frozen worker leaves behind.
    "idle_in_transaction_session_timeout": "60000",
    "idle_session_timeout": "60000",
}

# What PostgreSQL says where the schema is pg_cron's, or closed to this login, or not there.
FOREIGN = (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError)
# Far ahead is a lead from before somebody put the clock back.
LEAD = """
WITH taken AS (
    UPDATE cron.ticker SET owner = $1, held_until = clock_timestamp() + make_interval(secs => $2)
     WHERE held_until < clock_timestamp() OR held_until > clock_timestamp() + make_interval(secs => 2 * $2)
        OR (owner = $1 AND held_until < clock_timestamp() + make_interval(secs => $2 / 2.0))
    RETURNING 1
)
SELECT EXISTS (SELECT FROM taken)
    OR EXISTS (SELECT FROM cron.ticker WHERE owner = $1 AND held_until > clock_timestamp())
"""
LEAVE = "UPDATE cron.ticker SET held_until = '-infinity' WHERE owner = $1"
JOBS = """
SELECT jobid, jobname, schedule, username = current_user AS own, done_until, clock_timestamp() AS now
  FROM cron.job JOIN cron.tick USING (jobid) WHERE active
"""
SKIP = "UPDATE cron.tick SET done_until = clock_timestamp() WHERE jobid = $1 AND done_until = $2"

KEY = "hashtextextended('cron job ' || {}, 4602519830)"
LOCK = f"SELECT pg_try_advisory_lock({KEY.format('$1::text')})"
# A run that is noted as under way, and has no lock any more, is none.
GONE = (
    "status = 'failed', return_message = 'lost: its worker or its connection went away', end_time = clock_timestamp()"
)
CLAIMED = """
claimed AS (
    UPDATE cron.tick SET done_until = $4 FROM cron.job
     WHERE job.jobid = $1 AND tick.jobid = $1 AND tick.done_until = $2 AND job.schedule = $3 AND job.active
    RETURNING job.*
)
"""
CLAIM = f"""
WITH gone AS (
    UPDATE cron.job_run_details SET {GONE} WHERE jobid = $1 AND status = 'running'
), {CLAIMED}
INSERT INTO cron.job_run_details (jobid, job_pid, database, username, command, status, start_time)
SELECT jobid, pg_backend_pid(), database, username, command, 'running', clock_timestamp() FROM claimed
RETURNING runid, job_pid, command
"""
REFUSE = f"""
WITH {CLAIMED}
INSERT INTO cron.job_run_details (jobid, database, username, command, status, return_message, start_time, end_time)
SELECT jobid, database, username, command, 'failed',
       format('not run: the job is of %s, and the workflow-worker logs in as %s. Its superuser may make it its own:'
              ' SELECT cron.alter_job(%s, username := %L)', username, current_user, jobid, current_user),
       clock_timestamp(), clock_timestamp()
  FROM claimed
RETURNING runid
"""
# A command may take as long as statement_timeout says, in a transaction or not.
NO_OTHER_LIMIT = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'"
END = """
UPDATE cron.job_run_details SET status = $2, return_message = $3, end_time = clock_timestamp()
 WHERE runid = $1 AND status = 'running'
"""
CANCEL = "SELECT pg_cancel_backend(pid) FROM unnest($1::integer[]) AS pid"

# The status first: to ask for the lock of a job is to hold it for a moment.
SWEEP = f"""
WITH running AS MATERIALIZED (SELECT runid, jobid FROM cron.job_run_details WHERE status = 'running')
UPDATE cron.job_run_details AS run SET {GONE}
  FROM running WHERE run.runid = running.runid AND pg_try_advisory_xact_lock({KEY.format("running.jobid")})
"""
PRUNE = f"""
DELETE FROM cron.job_run_details WHERE runid IN (
    SELECT runid FROM cron.job_run_details WHERE start_time < now() - make_interval(days => {KEEP_DAYS})
     ORDER BY start_time LIMIT {CHUNK})
"""
PRUNE_FREQUENT = f"""
WITH bound AS MATERIALIZED (
    SELECT jobid, (SELECT runid FROM cron.job_run_details AS kept WHERE kept.jobid = job.jobid
                    ORDER BY runid DESC OFFSET {KEEP_RUNS} LIMIT 1) AS runid
      FROM cron.job
)
DELETE FROM cron.job_run_details AS run USING bound WHERE run.jobid = bound.jobid AND run.runid <= bound.runid
"""
FORGOTTEN = "INSERT INTO cron.tick (jobid) SELECT jobid FROM cron.job ON CONFLICT DO NOTHING"


class NotOurs(Exception):
    """The schema is pg_cron's, or this login may not use it: there is nothing to run here."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is switched on. It is `own` if it was made with the worker's login; times are the database's.

    What was due until `done_until` is done, or will not be.
    """

    jobid: int
    jobname: str | None
    schedule: str
    own: bool
    done_until: datetime
    now: datetime


class Ran(NamedTuple):
    """How a command ended, and what PostgreSQL said."""

    status: Literal["succeeded", "failed"]
    message: str


class CronStore:
    """The jobs, as one process sees them; `instance` names it.

    A command may take `command_seconds`. Every method raises `DatabaseUnavailable` for what time may cure, and
    `NotOurs`.
    """

    def __init__(self, database_url: str, instance: str, *, command_seconds: float = COMMAND_SECONDS) -> None:
        self._database_url = database_url
        self._database = Database(database_url, application=APPLICATION)
        self._instance = instance
        self._command_seconds = command_seconds
        self._pids: set[int] = set()

    async def lead(self) -> bool:
        """Take the lead where nobody has it, keep it where it is ours, and tell which."""
        async with self._connected() as connection:
            return bool(await connection.fetchval(LEAD, self._instance, LEAD_SECONDS))

    async def jobs(self) -> list[Job]:
        """Return the jobs that are switched on."""
        async with self._connected() as connection:
            return [Job(**dict(row)) for row in await connection.fetch(JOBS)]

    async def skip(self, job: Job) -> None:
        """Leave out what was due until now."""
        async with self._connected() as connection:
            await connection.execute(SKIP, job.jobid, job.done_until)

    async def refuse(self, job: Job, due: datetime) -> bool:
        """Note that a job of another login was not run; false when somebody else has dealt with it."""
        async with self._connected() as connection:
            claim = (job.jobid, job.done_until, job.schedule, due)
            return await connection.fetchval(REFUSE, *claim) is not None

    async def run(self, job: Job, due: datetime) -> Ran | None:
        """Run a job's command on a connection of its own and note how it ended.

        `None`: it runs already, or somebody else has dealt with this due time, or the job was changed.
        """
        with _foreign_told():
            async with self._command_database() as database, database.connected() as connection:
                if not await connection.fetchval(LOCK, str(job.jobid)):
                    return None
                claimed = await connection.fetchrow(CLAIM, job.jobid, job.done_until, job.schedule, due)
                if claimed is None:
                    return None
                await connection.execute(NO_OTHER_LIMIT)
                with self._cancellable(claimed["job_pid"]):
                    ran = await self._ran(connection, claimed["command"])
                # By another connection: the command may have left anything in its own, which keeps the lock meanwhile.
                await self._end(claimed["runid"], ran)
        return ran

    async def cancel(self) -> None:
        """Cancel all commands that this process runs."""
        async with self._connected() as connection:
            await connection.execute(CANCEL, list(self._pids))

    async def keep(self) -> None:
        """Note runs that were lost and delete old ones."""
        for statement in (FORGOTTEN, SWEEP, PRUNE, PRUNE_FREQUENT):
            async with self._connected() as connection:
                await connection.execute(statement)

    async def leave(self) -> None:
        """Let another process take the lead at once."""
        async with self._connected() as connection:
            await connection.execute(LEAVE, self._instance)

    async def close(self) -> None:
        """Close the connection."""
        await self._database.close()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        with _foreign_told():
            async with self._database.connected() as connection:
                yield connection

    def _command_database(self) -> Database:
        limit = {"statement_timeout": str(int(self._command_seconds * 1000))}
        return Database(self._database_url, application=APPLICATION, settings=SETTINGS | limit)

    async def _ran(self, connection: Any, command: str) -> Ran:
        if COPY.search(command):
            return Ran("failed", "COPY not supported: there is no client to copy from or to")
        try:
            return Ran("succeeded", _told(await connection.execute(command, timeout=ANSWER_SECONDS)))
        except asyncpg.PostgresError as error:
            return Ran("failed", _error(error))
        except AttributeError:
            # What asyncpg makes of a command without a statement.
            return Ran("succeeded", _told(""))
        except Exception as error:  # noqa: BLE001  whatever somebody's command does to the driver, others' jobs go on
            return Ran("failed", f"{type(error).__name__}: {error}")

    @contextmanager
    def _cancellable(self, pid: int) -> Iterator[None]:
        self._pids.add(pid)
        try:
            yield
        finally:
            self._pids.discard(pid)

    async def _end(self, runid: int, ran: Ran) -> None:
        async with self._connected() as connection:
            await connection.execute(END, runid, ran.status, storable(ran.message)[:MOST_MESSAGE])


@contextmanager
def _foreign_told() -> Iterator[None]:
    try:
        yield
    except FOREIGN as error:
        raise NotOurs(str(error)) from error


def _told(tag: str) -> str:
    """Say what a command did, as pg_cron says it."""
    rows = re.fullmatch(r"(?:SELECT (\d+))?", tag)
    if rows is None:
        return tag
    return "1 row" if rows[1] == "1" else f"{rows[1] or 0} rows"


def _error(error: asyncpg.PostgresError) -> str:
    more = (f"{label}:  {text}" for label in ("DETAIL", "HINT") if (text := getattr(error, label.lower(), None)))
    return "\n".join([f"ERROR:  {error.args[0] if error.args else type(error).__name__}", *more])
