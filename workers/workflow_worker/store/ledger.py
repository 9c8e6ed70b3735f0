"""Writes of workers for their executions: many at a time, each only if its token is still the newest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from worker_runtime.postgres import DatabaseUnavailable
from workflow_worker.execution import Cancelled, Completed, Failing, Lease, Released, Suspended
from workflow_worker.store.rows import ALLOWED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker_runtime.postgres import Database
    from workflow_worker.execution import Ending, EventWait, Execution, StepRecord

__all__ = ["HOLD_AT_MOST", "LedgerStore", "RowHeld", "Standing", "Unwritable", "Write"]

# A value that it cannot hold, a rule of the schema: no wait cures that.
UNWRITABLE = (
    asyncpg.CardinalityViolationError,
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)

# For the connection: how long a batch waits for a row that is held by somebody else.
HOLD_AT_MOST = {"lock_timeout": "500"}
# Instead of a number of seconds.
FOR_EVER = -1.0
# The same text is hashed where signals are sent: see fw_workflow_signal().
LOCK_WAITS = """
SELECT pg_advisory_xact_lock(key) FROM (
    SELECT DISTINCT hashtextextended(organization || chr(1) || event || chr(1) || correlation, 4602519830) AS key
      FROM unnest($1::text[], $2::text[], $3::text[]) AS given (organization, event, correlation) ORDER BY key) AS keys
"""
HOLD = f"""
SELECT execution.id, execution.lease_token, execution.cancel_requested_at IS NOT NULL AS cancel_requested,
       coalesce({ALLOWED}, false) AND (SELECT fw_workflows_scheduled()) AS may_go_on
  FROM unnest($1::uuid[], $2::bigint[]) AS given (id, token)
       JOIN fw_workflow_executions AS execution ON execution.id = given.id AND execution.lease_token = given.token
       LEFT JOIN fw_module_settings AS settings ON settings.organization_id = execution.organization_id
 WHERE execution.status = 'running'
 ORDER BY execution.id
   FOR NO KEY UPDATE OF execution
"""
# Whoever ends changes its parent, and whoever is cancelled its children: see fw_workflow_executions_ended().
HOLD_FAMILIES = "SELECT fw_workflow_hold($1, $2)"
RECORD = """
INSERT INTO fw_workflow_steps
       (execution_id, step, round, attempt, kind, status, output, error, started_at, finished_at, worker)
SELECT *, $11 FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::integer[], $5::text[], $6::text[], $7::jsonb[],
                          $8::text[], $9::timestamptz[], $10::timestamptz[])
    ON CONFLICT (execution_id, step, round, attempt) DO UPDATE
   SET status = excluded.status, output = excluded.output, error = excluded.error, finished_at = excluded.finished_at,
       worker = excluded.worker
"""
# Progress takes the count of failures, and of vanished workers, back to nothing.
PROGRESS = """
UPDATE fw_workflow_executions SET retry_count = 0, crash_count = 0
 WHERE id = ANY ($1) AND (retry_count > 0 OR crash_count > 0)
"""
SETTLE = """
WITH settled AS (
    UPDATE fw_workflow_executions AS execution
       SET status = given.status, lease_token = lease_token + 1, lease_owner = NULL,
           -- One that is asked to end is not let wait first.
           ready_at = CASE WHEN cancel_requested_at IS NOT NULL THEN now() WHEN given.seconds < 0 THEN 'infinity'
                      ELSE coalesce(given.ready_at, now() + make_interval(secs => given.seconds)) END,
           next_retry_at = CASE given.status
                           WHEN 'retry_pending' THEN now() + make_interval(secs => given.seconds) END,
           completed_at = CASE WHEN given.over THEN clock_timestamp() END,
           result = given.result::jsonb, last_error = coalesce(given.error, last_error),
           retry_count = given.retry_count,
           crash_count = CASE WHEN given.attempted OR given.progressed THEN 0 ELSE crash_count END,
           total_attempts = total_attempts + given.attempted::integer
      FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::float[], $5::boolean[], $6::text[], $7::text[],
                  $8::integer[], $9::boolean[], $10::boolean[])
           AS given (id, status, ready_at, seconds, over, result, error, retry_count, attempted, progressed)
     WHERE execution.id = given.id
    RETURNING execution.*, given.over
), mirrored AS (
    UPDATE pgmq.q_workflow_execution_queue AS message
       SET vt = settled.ready_at, message = jsonb_set(message, '{attempt}', to_jsonb(settled.retry_count + 1))
      FROM settled WHERE message.msg_id = settled.msg_id AND NOT settled.over
), dead AS (
    INSERT INTO pgmq.q_workflow_dlq (vt, message)
    SELECT clock_timestamp(),
           fw_workflow_message(id, organization_id, rule_id, workflow, retry_count) - 'source' || jsonb_build_object(
               'total_attempts', total_attempts, 'error', last_error, 'failed_at', completed_at,
               'original_msg_id', msg_id)
      FROM settled WHERE status = 'failed'
)
SELECT array_agg(msg_id) FILTER (WHERE over) AS messages, array_agg(id) FILTER (WHERE over) AS over
  FROM settled
"""
ARCHIVE = "SELECT fw_workflow_archive($1)"
FORGET_WAITS = "DELETE FROM fw_workflow_waits WHERE execution_id = ANY ($1)"
# Those that a turn no longer waits for, met or timed out: what they were told of would wake it without end.
FORGET_OTHERS = """
DELETE FROM fw_workflow_waits AS waits
 WHERE execution_id = ANY ($1)
   AND NOT EXISTS (SELECT FROM unnest($2::uuid[], $3::text[]) AS given (id, step)
                    WHERE given.id = waits.execution_id AND given.step = waits.step)
"""
WAIT = """
INSERT INTO fw_workflow_waits (execution_id, step, organization_id, event_name, correlation, after_signal)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
    ON CONFLICT (execution_id, step) DO UPDATE SET after_signal = excluded.after_signal
"""
# Those whose signal has come before they began to wait; and parents whose child was faster than they.
WAKE_MET = """
SELECT fw_workflow_wake(array_agg(DISTINCT execution.id)) FROM fw_workflow_executions AS execution
 WHERE id = ANY ($1)
   AND (EXISTS (SELECT FROM fw_workflow_waits AS waits JOIN fw_workflow_signals AS signals
                            USING (organization_id, event_name, correlation)
                 WHERE waits.execution_id = execution.id
                   AND signals.id > greatest(waits.after_signal, execution.signals_before))
        OR EXISTS (SELECT FROM fw_workflow_executions AS child
                    WHERE child.parent_id = execution.id AND child.status IN ('completed', 'failed', 'cancelled')
                      AND child.id::text IN (
                          SELECT output->>'executionId' FROM fw_workflow_steps AS steps
                           WHERE steps.execution_id = execution.id AND steps.status = 'waiting'
                             -- One that began to wait before it was opened again has ended in a later round.
                             AND NOT EXISTS (SELECT FROM fw_workflow_steps AS later
                                              WHERE later.execution_id = steps.execution_id AND later.step = steps.step
                                                AND later.round > steps.round AND later.status <> 'waiting'))))
"""


class RowHeld(Exception):
    """Somebody else, a person perhaps, holds a row of the batch: nothing of it was written."""


class Unwritable(Exception):
    """PostgreSQL refuses to hold something that an execution wants to keep. Names the kind of error."""


@dataclass(frozen=True, slots=True)
class Write:
    """What one execution has to say: records, and perhaps how its turn ended."""

    execution: Execution
    records: Sequence[StepRecord]
    ending: Ending | None = None
    progressed: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """How an execution stands, as of a write that counted. `renewed`: unless somebody else holds its row."""

    cancel_requested: bool
    may_go_on: bool
    renewed: bool = True


class LedgerStore:
    """Raises `DatabaseUnavailable` for what time may cure; then nothing of the batch was written, or all of it."""

    def __init__(self, database: Database, worker: str) -> None:
        self._database = database
        self._worker = worker

    async def write(self, writes: Sequence[Write]) -> list[Standing | None]:
        """Write what still may be written; `None` in the place of a write whose lease is lost.

        Raises `Unwritable` when PostgreSQL refuses one of them, whoever asks and whenever, and `RowHeld`.
        """
        try:
            return await self._written(writes)
        except DatabaseUnavailable as error:
            if isinstance(error.__cause__, asyncpg.LockNotAvailableError):
                raise RowHeld from error
            if isinstance(error.__cause__, UNWRITABLE):
                raise Unwritable(type(error.__cause__).__name__) from error
            raise

    async def _written(self, writes: Sequence[Write]) -> list[Standing | None]:
        async with self._database.transaction() as connection:
            if waits := [(write, wait) for write in writes for wait in _waits(write)]:
                await connection.execute(LOCK_WAITS, *_signals_of(waits))
            held = await self._held(connection, writes)
            kept = [write for write in writes if write.execution.lease in held]
            await self._record(connection, kept)
            if ended := [write for write in kept if write.ending is not None]:
                await _settle(connection, ended)
        return [held.get(write.execution.lease) for write in writes]

    async def _held(self, connection: Any, writes: Sequence[Write]) -> Mapping[Lease, Standing]:
        # By lease: a worker that lost an execution and has it again may say something by both in one batch.
        leases = [write.execution.lease for write in writes]
        cancelled = [write.execution.id for write in writes if isinstance(write.ending, Cancelled)]
        parents = [parent for write in writes if _is_over(write) and (parent := write.execution.parent_id) is not None]
        if cancelled or parents:
            await connection.execute(HOLD_FAMILIES, [*parents, *(one.execution_id for one in leases)], cancelled)
        rows = await connection.fetch(HOLD, [one.execution_id for one in leases], [one.token for one in leases])
        return {
            Lease(row["id"], row["lease_token"]): Standing(row["cancel_requested"], row["may_go_on"]) for row in rows
        }

    async def _record(self, connection: Any, writes: Sequence[Write]) -> None:
        if lines := _lines(writes):
            await connection.execute(RECORD, *_columns(lines), self._worker)
        progressed = [
            write.execution.id for write in writes if write.progressed and write.ending is None and _counts(write)
        ]
        if progressed:
            await connection.execute(PROGRESS, progressed)


def _is_over(write: Write) -> bool:
    match write.ending:
        case Completed() | Cancelled():
            return True
        case Failing(_, seconds):
            return seconds is None
    return False


def _counts(write: Write) -> bool:
    return write.execution.retry_count > 0 or write.execution.crash_count > 0


async def _settle(connection: Any, writes: Sequence[Write]) -> None:
    ends = await connection.fetchrow(SETTLE, *_columns([(*_end(write), write.progressed) for write in writes]))
    if ends["over"]:
        await connection.execute(ARCHIVE, ends["messages"])
        await connection.execute(FORGET_WAITS, ends["over"])
    if suspended := [write for write in writes if isinstance(write.ending, Suspended)]:
        waits = [(write, wait) for write in suspended for wait in _waits(write)]
        if older := [write.execution.id for write in suspended if write.execution.records]:
            steps = [[write.execution.id for write, _ in waits], [wait.step for _, wait in waits]]
            await connection.execute(FORGET_OTHERS, older, *steps)
        if waits:
            rows = [(write.execution.id, wait.step, *_signal(write, wait), wait.after_signal) for write, wait in waits]
            await connection.execute(WAIT, *_columns(rows))
        await connection.execute(WAKE_MET, [write.execution.id for write in suspended])


def _waits(write: Write) -> Sequence[EventWait]:
    return write.ending.waits if isinstance(write.ending, Suspended) else ()


def _signals_of(waits: Sequence[tuple[Write, EventWait]]) -> list[list[Any]]:
    return _columns([_signal(write, wait) for write, wait in waits])


def _signal(write: Write, wait: EventWait) -> tuple[str, str, str]:
    return write.execution.organization_id, wait.event, wait.correlation


def _lines(writes: Sequence[Write]) -> list[tuple[Any, ...]]:
    # A step that began to wait and had no longer to is both in one write: one statement writes a row once.
    newest = {
        (write.execution.id, record.step, record.attempt): _line(write.execution, record)
        for write in writes
        for record in write.records
    }
    return list(newest.values())


def _line(execution: Execution, record: StepRecord) -> tuple[Any, ...]:
    output = None if record.output is None and record.status != "completed" else json.dumps(record.output)
    return (
        execution.id,
        record.step,
        execution.round,
        record.attempt,
        record.kind,
        record.status,
        output,
        record.error,
        record.started_at,
        record.finished_at,
    )


def _end(write: Write) -> tuple[Any, ...]:  # noqa: PLR0911  one for each way in which a turn ends
    """Return (id, status, ready_at, seconds, over, result, error, retry_count, attempted)."""
    key, failures = write.execution.id, 0 if write.progressed else write.execution.retry_count
    match write.ending:
        case Completed(result):
            return key, "completed", None, 0.0, True, json.dumps(result), None, failures, True
        case Failing(error, None):
            return key, "failed", None, 0.0, True, None, error, failures + 1, True
        case Failing(error, seconds):
            return key, "retry_pending", None, seconds, False, None, error, failures + 1, True
        case Suspended(None):
            return key, "waiting", None, FOR_EVER, False, None, None, failures, False
        case Suspended(until):
            return key, "waiting", until, 0.0, False, None, None, failures, False
        case Released(reason, seconds):
            return key, "queued", None, seconds, False, None, reason if seconds else None, failures, False
        case Cancelled(reason):
            return key, "cancelled", None, 0.0, True, None, reason, failures, False
        case None:
            raise TypeError("only called for a turn that ended")


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
