"""What keeps executions and messages together, what takes old ones away, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workflow_worker.store.rows import ACTIVE

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

__all__ = ["Counts", "Swept", "UpkeepStore"]

CHUNK = 1_000
ALONE = "SELECT pg_try_advisory_xact_lock(hashtextextended('sweep of workflows', 4602519830))"
# Rows whose message somebody has purged, deleted or archived. A thousand of them at a time.
RESEND = f"""
WITH bare AS (
    SELECT id, nextval('pgmq.q_workflow_execution_queue_msg_id_seq') AS number FROM fw_workflow_executions AS execution
     WHERE {ACTIVE} AND status <> 'running'
       AND NOT EXISTS (SELECT FROM pgmq.q_workflow_execution_queue AS message WHERE message.msg_id = execution.msg_id)
     LIMIT {CHUNK} FOR NO KEY UPDATE SKIP LOCKED
), numbered AS (
    UPDATE fw_workflow_executions AS execution SET msg_id = bare.number FROM bare WHERE execution.id = bare.id
    RETURNING execution.*
), sent AS (
    INSERT INTO pgmq.q_workflow_execution_queue (msg_id, vt, message) OVERRIDING SYSTEM VALUE
    SELECT msg_id, ready_at, fw_workflow_message(id, organization_id, rule_id, workflow, retry_count + 1) FROM numbered
    RETURNING 1
)
SELECT count(*) FROM sent
"""
# Messages that are nobody's: of executions that are over, or that have another message. The grace is for a writer who
# sends a message before the row that it is about.
STRAY = f"""
SELECT message.msg_id, execution.id IS NOT NULL AS known
  FROM pgmq.q_workflow_execution_queue AS message
       LEFT JOIN fw_workflow_executions AS own ON own.msg_id = message.msg_id AND own.{ACTIVE}
       LEFT JOIN fw_workflow_executions AS execution
              ON execution.id = CASE WHEN message.message->>'execution_id' ~* $1
                                     THEN (message.message->>'execution_id')::uuid END
             AND execution.organization_id = coalesce(message.message->>'organization_id', execution.organization_id)
 WHERE own.id IS NULL AND message.enqueued_at < now() - interval '1 minute'
 LIMIT {CHUNK}
"""
UUID_PATTERN = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
ARCHIVE = "SELECT fw_workflow_archive($1)"
# What nobody knows is kept where people look, with the reason.
BURY = """
WITH gone AS (DELETE FROM pgmq.q_workflow_execution_queue WHERE msg_id = ANY ($1) RETURNING msg_id, message)
INSERT INTO pgmq.q_workflow_dlq (vt, message)
SELECT clock_timestamp(),
       CASE jsonb_typeof(message) WHEN 'object' THEN message ELSE jsonb_build_object('message', message) END
       || jsonb_build_object('error', 'UNKNOWN_EXECUTION: no execution of that organization_id has this execution_id',
                             'failed_at', clock_timestamp(), 'original_msg_id', msg_id)
  FROM gone
"""
# Of more than a signal may wake at once, those that still wait.
MET = f"""
WITH met AS (
    SELECT DISTINCT execution.id
      FROM fw_workflow_waits AS waits JOIN fw_workflow_executions AS execution ON execution.id = waits.execution_id
     WHERE execution.status = 'waiting' AND execution.ready_at > now()
       AND EXISTS (SELECT FROM fw_workflow_signals AS signals
                    WHERE signals.organization_id = waits.organization_id AND signals.event_name = waits.event_name
                      AND signals.correlation = waits.correlation
                      AND signals.id > greatest(waits.after_signal, execution.signals_before))
     LIMIT {CHUNK}
)
SELECT count(*) AS woken, fw_workflow_wake(array_agg(id)) FROM met
"""
# What a parent may still ask for is kept: it goes on, or is opened again.
PURGE_EXECUTIONS = f"""
DELETE FROM fw_workflow_executions WHERE id IN (
    SELECT id FROM fw_workflow_executions AS old
     WHERE (status = 'failed') = $1 AND completed_at < now() - make_interval(days => $2::integer)
       AND NOT EXISTS (SELECT FROM fw_workflow_executions AS parent
                        WHERE parent.id = old.parent_id AND parent.status NOT IN ('completed', 'cancelled'))
     ORDER BY completed_at LIMIT {CHUNK} FOR UPDATE SKIP LOCKED)
"""
PURGE_SIGNALS = f"""
DELETE FROM fw_workflow_signals WHERE id IN (
    SELECT id FROM fw_workflow_signals WHERE received_at < now() - make_interval(days => $1::integer)
     ORDER BY received_at LIMIT {CHUNK} FOR UPDATE SKIP LOCKED)
"""
PURGE_ARCHIVE = f"""
DELETE FROM pgmq.a_workflow_execution_queue WHERE msg_id IN (
    SELECT msg_id FROM pgmq.a_workflow_execution_queue WHERE archived_at < now() - make_interval(days => $1::integer)
     ORDER BY archived_at LIMIT {CHUNK} FOR UPDATE SKIP LOCKED)
"""
COUNT = """
SELECT count(*) FILTER (WHERE vt <= now()) AS waiting, count(*) FILTER (WHERE vt > now()) AS later,
       (SELECT count(*) FROM fw_workflow_executions WHERE status = 'running') AS active,
       (SELECT count(*) FROM pgmq.q_workflow_dlq) AS dead,
       -- Since it is due: an execution may have waited for a month by then.
       coalesce(extract(epoch FROM now() - min(vt) FILTER (WHERE vt <= now())), 0)::float AS oldest_seconds,
       (SELECT greatest(reltuples, 0)::bigint FROM pg_class
         WHERE oid = 'pgmq.a_workflow_execution_queue'::regclass) AS archived,
       fw_workflows_scheduled() AS scheduled
  FROM pgmq.q_workflow_execution_queue
"""


@dataclass(frozen=True, slots=True)
class Swept:
    """How many rows had no message, how many messages no row, and how many waits a signal that had come."""

    resent: int = 0
    strays: int = 0
    unknown: int = 0
    woken: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """What is in the queues; `archived` is an estimate."""

    waiting: int
    active: int
    later: int
    dead: int
    archived: int
    oldest_seconds: float
    scheduled: bool


class UpkeepStore:
    """Every method works on a thousand rows at most and may be called by several workers at once.

    Raises `DatabaseUnavailable` for what time may cure.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sweep(self) -> Swept:
        """Send messages that are missing, take away those that are nobody's, wake who was left waiting.

        It reads all that is to be done, so one worker at a time does it; for the others there is nothing.
        """
        async with self._database.transaction() as connection:
            if not await connection.fetchval(ALONE):
                return Swept()
            resent = await connection.fetchval(RESEND)
            strays = await connection.fetch(STRAY, UUID_PATTERN)
            known = [row["msg_id"] for row in strays if row["known"]]
            unknown = [row["msg_id"] for row in strays if not row["known"]]
            await connection.execute(ARCHIVE, known)
            await connection.execute(BURY, unknown)
            woken = await connection.fetchval(MET)
        return Swept(resent, len(known), len(unknown), woken)

    async def purge(self, days: int, failed_days: int) -> int:
        """Delete executions that ended so many days ago, signals and archived messages of that age; return how many."""
        gone = 0
        for statement, arguments in (
            (PURGE_EXECUTIONS, (False, days)),
            (PURGE_EXECUTIONS, (True, failed_days)),
            (PURGE_SIGNALS, (days,)),
            (PURGE_ARCHIVE, (days,)),
        ):
            async with self._database.connected() as connection:
                gone += int((await connection.execute(statement, *arguments)).split()[-1])
        return gone

    async def count(self) -> Counts:
        """Count the messages."""
        async with self._database.connected() as connection:
            row = await connection.fetchrow(COUNT)
        return Counts(**dict(row))
