"""Which executions run next: the oldest that is ready of each organisation, in turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workflow_worker.execution import MOST_CRASHES
from workflow_worker.store.rows import ACTIVE, ALLOWED, ROW_BY_ROW, Past, execution_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from uuid import UUID

    from worker_runtime.postgres import Database
    from workflow_worker.execution import Execution

__all__ = ["CLAIMING", "ClaimStore", "Claims"]

# What a claim wants in order has an index in that order, and no other will do: of two that begin with the organisation
# the planner, which believes the table to be nearly empty, took the one that made it read the whole backlog to sort it.
CLAIMING = {**ROW_BY_ROW, "enable_sort": "off"}

# So many workers may claim for an organisation at the same moment.
CLAIMS_AT_ONCE = 20
ASIDE_SECONDS = 0.5
# The next organisation that has something to do and may do it: from one that has work to the next that is allowed, and
# on, so that neither those that are off nor those without work are looked at one by one.
LEAP = f"""
SELECT allowed.organization_id, batch, seconds, most,
       CASE WHEN allowed.organization_id = work.organization_id THEN work.ready_at
       ELSE (SELECT ready_at FROM fw_workflow_executions AS first
              WHERE first.organization_id = allowed.organization_id AND {ACTIVE} ORDER BY ready_at LIMIT 1)
       END AS ready_at
  FROM (SELECT organization_id, ready_at FROM fw_workflow_executions AS beyond
         WHERE beyond.organization_id {{beyond}} AND {ACTIVE} ORDER BY organization_id, ready_at LIMIT 1) AS work
       CROSS JOIN LATERAL (
       SELECT organization_id, fw_worker_batch_size AS batch, fw_worker_visibility_timeout_seconds AS seconds,
              fw_worker_max_concurrency AS most
         FROM fw_module_settings AS settings
        WHERE settings.organization_id >= work.organization_id AND {ALLOWED} ORDER BY organization_id
         LIMIT 1) AS allowed
"""
# Once round, from where the last turn ended; walked only as far as somebody reads it.
RING = f"""
WITH RECURSIVE behind AS (
    ({LEAP.format(beyond="> $4")})
    UNION ALL SELECT next.* FROM behind CROSS JOIN LATERAL ({LEAP.format(beyond="> behind.organization_id")}) AS next
), before AS (
    ({LEAP.format(beyond=">= ''")})
    UNION ALL SELECT next.* FROM before CROSS JOIN LATERAL ({LEAP.format(beyond="> before.organization_id")}) AS next
               WHERE before.organization_id <= $4
), ring AS (
    SELECT * FROM behind UNION ALL SELECT * FROM before WHERE organization_id <= $4
)
"""
ROOM = """
CROSS JOIN LATERAL (
      SELECT most - count(*) AS room FROM fw_workflow_executions AS other
       WHERE other.organization_id = {organization}.organization_id AND status = 'running' AND other.ready_at > now()
      ) AS running
"""
# $1 free slots, $2 slots that any organisation may have, $3 organisations that have slots here, $4 where the last turn
# ended, $5 whether to look at every organisation though no message is due.
#
# For an organisation that is near its cap one worker claims at a time: two that count at the same time would not count
# each other's.
READY = f"""
{RING}, ready AS (
    SELECT organization_id, seconds, batch, most, room, organization_id <> ALL ($3::text[]) AS newcomer
      FROM ring {ROOM.format(organization="ring")}
     WHERE room > 0 AND ready_at <= now()
       AND (SELECT $5 OR EXISTS (SELECT FROM pgmq.q_workflow_execution_queue WHERE vt <= now()))
       AND (SELECT fw_workflows_scheduled())
), near AS (
    (SELECT * FROM ready WHERE $2 > 0 LIMIT 2 * $1)
    -- However many come before them that have slots here: for those nobody else may have.
    UNION (SELECT * FROM ready WHERE newcomer LIMIT 2 * $1)
)
SELECT organization_id, seconds, batch, most FROM near
 WHERE room >= {CLAIMS_AT_ONCE} * batch
    OR pg_try_advisory_xact_lock(hashtextextended('claims of ' || organization_id, 4602519830))
"""
# $1 free slots, $2 slots that any organisation may have, $3 organisations that have slots here, $4 where the last turn
# ended, $5 this worker, $6 whether it may have a suspect, then what is ready. Candidates are locked before they are
# ranked: what another worker is taking is passed over.
#
# A suspect is an execution whose worker would vanish for the last time: a worker has one of them at a time, and the
# others are put aside for a moment. Else whatever is claimed together with one that kills its process would be blamed
# for each of its deaths, too.
CLAIM = f"""
WITH near AS (
    SELECT organization_id, seconds, least(batch, room) AS room, ceil($1::float / count(*) OVER ()) AS share
      FROM unnest($7::text[], $8::integer[], $9::integer[], $10::integer[])
           AS ready (organization_id, seconds, batch, most) {ROOM.format(organization="ready")}
     WHERE room > 0
), candidate AS (
    SELECT near.organization_id, near.seconds, one.*
      FROM near CROSS JOIN LATERAL (
           SELECT id, status, started_at, ready_at, crash_count + (status = 'running')::integer = {MOST_CRASHES - 1}
                  AS suspect
             FROM fw_workflow_executions AS execution
            WHERE execution.organization_id = near.organization_id AND {ACTIVE} AND execution.ready_at <= now()
            ORDER BY execution.ready_at LIMIT least(near.room, near.share)::integer
              FOR NO KEY UPDATE SKIP LOCKED) AS one
), judged AS (
    SELECT *, suspect AND (NOT $6 OR row_number() OVER (PARTITION BY suspect ORDER BY ready_at) > 1) AS aside
      FROM candidate
), turn AS (
    SELECT *, row_number() OVER (PARTITION BY organization_id ORDER BY ready_at) AS number FROM judged WHERE NOT aside
), place AS (
    SELECT *, number = 1 AND organization_id <> ALL ($3::text[]) AS newcomer,
           row_number() OVER (ORDER BY number = 1 AND organization_id <> ALL ($3::text[]) DESC, number,
                                       organization_id <= $4, organization_id) AS place
      FROM turn
), chosen AS (
    SELECT * FROM place WHERE place <= $1 AND (newcomer OR place <= $2)
), claimed AS (
    UPDATE fw_workflow_executions AS execution
       SET status = 'running', lease_token = lease_token + 1, lease_owner = $5, heartbeat_at = now(),
           ready_at = now() + make_interval(secs => chosen.seconds),
           started_at = coalesce(execution.started_at, now()), next_retry_at = NULL,
           crash_count = crash_count + (chosen.status = 'running')::integer,
           rule_version = coalesce(rule_version, (SELECT current_version FROM fw_workflow_rules WHERE id = rule_id))
      FROM chosen WHERE execution.id = chosen.id
    RETURNING execution.*, chosen.seconds, chosen.started_at IS NULL AS fresh,
              CASE WHEN chosen.started_at IS NULL THEN extract(epoch FROM now() - chosen.ready_at)::float END AS waited
), put_aside AS (
    UPDATE fw_workflow_executions AS execution
       SET status = CASE judged.status WHEN 'running' THEN 'queued' ELSE judged.status END,
           lease_token = lease_token + 1, lease_owner = NULL, ready_at = now() + interval '{ASIDE_SECONDS} seconds',
           crash_count = {MOST_CRASHES - 1}
      FROM judged WHERE execution.id = judged.id AND judged.aside
    RETURNING execution.msg_id, execution.ready_at
), mirrored AS (
    UPDATE pgmq.q_workflow_execution_queue AS message SET vt = moved.ready_at, read_ct = read_ct + moved.reads
      FROM (SELECT msg_id, ready_at, 1 AS reads FROM claimed UNION ALL SELECT *, 0 FROM put_aside) AS moved
     WHERE message.msg_id = moved.msg_id
)
SELECT id, organization_id, rule_id, rule_version, workflow, workflow_version, input, created_at, heartbeat_at, round,
       retry_count, total_attempts, crash_count, cancel_requested_at IS NOT NULL AS cancel_requested,
       trace, parent_id, lease_token, seconds AS visibility_seconds, fresh, waited
  FROM claimed
"""
# What was completed in any round is not done again; failures count in their own round.
RECORDS = """
SELECT execution_id, step, kind, steps.status, output, steps.started_at, finished_at, attempt, error
  FROM fw_workflow_steps AS steps JOIN fw_workflow_executions AS execution ON execution.id = steps.execution_id
 WHERE execution_id = ANY ($1) AND (steps.status <> 'failed' OR steps.round = execution.round)
 ORDER BY execution_id, steps.round, steps.started_at
"""
DELIVERIES = """
SELECT waits.execution_id, waits.step, signal.id, signal.payload
  FROM fw_workflow_waits AS waits JOIN fw_workflow_executions AS execution ON execution.id = waits.execution_id
       CROSS JOIN LATERAL (
       SELECT id, payload FROM fw_workflow_signals AS signals
        WHERE signals.organization_id = waits.organization_id AND signals.event_name = waits.event_name
          AND signals.correlation = waits.correlation
          AND signals.id > greatest(waits.after_signal, execution.signals_before)
        ORDER BY id LIMIT 1) AS signal
 WHERE waits.execution_id = ANY ($1)
"""
# Those that a step still waits for. Of results that are too much at once, the others come with the next turn.
MOST_RESULT_BYTES = 4_194_304
CHILDREN = f"""
SELECT parent_id, id, status, result, last_error
  FROM (SELECT parent_id, child.id::text, child.status, result, last_error,
               sum(coalesce(pg_column_size(result), 0)) OVER (PARTITION BY parent_id ORDER BY child.id) AS bytes
          FROM fw_workflow_executions AS child
               JOIN fw_workflow_steps AS steps
                 ON steps.execution_id = child.parent_id AND steps.step = child.parent_step
                    AND steps.status = 'waiting' AND steps.output->>'executionId' = child.id::text
         WHERE parent_id = ANY ($1) AND child.status IN ('completed', 'failed', 'cancelled')) AS ended
 WHERE bytes <= {MOST_RESULT_BYTES}
"""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a claim brought, and where the next one is to begin."""

    executions: Sequence[Execution]
    cursor: str


class ClaimStore:
    """Raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database, worker: str) -> None:
        self._database = database
        self._worker = worker

    async def claim(
        self,
        free: int,
        for_any: int,
        holders: Collection[str],
        cursor: str,
        *,
        look: bool = True,
        suspect: bool = True,
    ) -> Claims:
        """Take up to `free` executions; beyond `for_any` only of organisations that are not among `holders`.

        Without `look` a message has to be due, as it is for whatever is ready, unless somebody has purged the queue.
        At most one of them is a suspect, and none unless `suspect` says that there is room for one.
        """
        turn = free, for_any, list(holders), cursor
        async with self._database.transaction() as connection:
            if not (ready := await connection.fetch(READY, *turn, look)):
                return Claims([], cursor)
            near = [list(column) for column in zip(*ready, strict=True)]
            rows = await connection.fetch(CLAIM, *turn, self._worker, suspect, *near)
            going_on = [row["id"] for row in rows if not row["fresh"]]
            past = await _past(connection, going_on) if going_on else Past()
        executions = [execution_of(row, past) for row in rows]
        return Claims(executions, _last_served({row["organization_id"] for row in rows}, cursor))


def _last_served(organizations: Collection[str], cursor: str) -> str:
    """Return where in the ring the turn ended: it began behind `cursor`, and may have passed the ring's end."""
    return max([one for one in organizations if one <= cursor] or organizations, default=cursor)


async def _past(connection: Any, ids: Sequence[UUID]) -> Past:
    past = Past()
    for row in await connection.fetch(RECORDS, ids):
        past.add_record(row)
    for row in await connection.fetch(DELIVERIES, ids):
        past.add_delivery(row)
    for row in await connection.fetch(CHILDREN, ids):
        past.add_child(row)
    return past
