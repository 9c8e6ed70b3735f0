"""Which executions run next: the oldest that is ready of each organisation, in turns."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workflow_worker.execution import MOST_CRASHES, ChildEnd, Delivery
from workflow_worker.store.rows import ACTIVE, ALLOWED, execution_of, record_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from worker_runtime.postgres import Database
    from workflow_worker.execution import Execution, StepRecord

__all__ = ["ClaimStore", "Claims"]

ASIDE_SECONDS = 0.5
SCHEDULED = "SELECT fw_workflows_scheduled()"
# From one organisation to the next by the index, however many rows each has; with when its first one is ready.
RING = f"""
WITH RECURSIVE ring AS (
    (SELECT organization_id, ready_at FROM fw_workflow_executions
      WHERE {ACTIVE} ORDER BY organization_id, ready_at LIMIT 1)
    UNION ALL
    SELECT next.organization_id, next.ready_at
      FROM ring CROSS JOIN LATERAL (
           SELECT organization_id, ready_at FROM fw_workflow_executions AS beyond
            WHERE {ACTIVE} AND beyond.organization_id > ring.organization_id
            ORDER BY organization_id, ready_at LIMIT 1) AS next
), allowed AS (
    SELECT ring.organization_id, ready_at, batch, seconds, most
      FROM ring CROSS JOIN LATERAL (
           SELECT fw_worker_batch_size AS batch, fw_worker_visibility_timeout_seconds AS seconds,
                  fw_worker_max_concurrency AS most
             FROM fw_module_settings AS settings
            WHERE settings.organization_id = ring.organization_id AND {ALLOWED}
           -- By the index for each, whatever the planner believes of tables that were empty a minute ago.
           OFFSET 0) AS settings
)
"""
# $1 free slots, $2 slots that any organisation may have, $3 organisations that have slots here, $4 where the last turn
# ended, $5 this worker, $6 whether it may have a suspect. Candidates are locked before they are ranked: what another
# worker is taking is passed over.
#
# A suspect is an execution whose worker would vanish for the last time: a worker has one of them at a time, and the
# others are put aside for a moment. Else whatever is claimed together with one that kills its process would be blamed
# for each of its deaths, too.
CLAIM = f"""
{RING}, ready AS (
    SELECT organization_id, seconds, least(batch, most - running.count) AS room
      FROM allowed CROSS JOIN LATERAL (
           SELECT count(*) FROM fw_workflow_executions AS other
            WHERE other.organization_id = allowed.organization_id AND status = 'running' AND other.ready_at > now()
           ) AS running
     WHERE ready_at <= now() AND (SELECT fw_workflows_scheduled())
     ORDER BY organization_id <= $4, organization_id
), near AS (
    SELECT *, ceil($1::float / count(*) OVER ()) AS share
      FROM (SELECT * FROM ready WHERE room > 0 LIMIT 2 * $1) AS those
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
       retry_count, total_attempts, crash_count, cancel_requested_at IS NOT NULL AS cancel_requested, deadline_at,
       trace, lease_token, seconds AS visibility_seconds, fresh, waited
  FROM claimed
"""
SOONEST = f"{RING} SELECT extract(epoch FROM min(ready_at) - now())::float FROM allowed WHERE ready_at < 'infinity'"
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
          AND signals.correlation = waits.correlation AND signals.id > waits.after_signal
          AND signals.received_at >= execution.created_at
        ORDER BY id LIMIT 1) AS signal
 WHERE waits.execution_id = ANY ($1)
"""
CHILDREN = """
SELECT parent_id, id::text, status, result, last_error FROM fw_workflow_executions
 WHERE parent_id = ANY ($1) AND status IN ('completed', 'failed', 'cancelled')
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
        self, free: int, for_any: int, holders: Collection[str], cursor: str, *, suspect: bool = True
    ) -> Claims:
        """Take up to `free` executions; beyond `for_any` only of organisations that are not among `holders`.

        At most one of them is a suspect, and none unless `suspect` says that there is room for one.
        """
        async with self._database.transaction() as connection:
            rows = await connection.fetch(CLAIM, free, for_any, list(holders), cursor, self._worker, suspect)
            going_on = [row["id"] for row in rows if not row["fresh"]]
            past = await _past(connection, going_on) if going_on else _Past()
        executions = [past.execution(row) for row in rows]
        return Claims(executions, _last_served({row["organization_id"] for row in rows}, cursor))

    async def seconds_until_ready(self) -> float | None:
        """Return when the next execution is ready, in seconds from now; `None` for never."""
        async with self._database.connected() as connection:
            seconds: float | None = await connection.fetchval(SOONEST)
        return seconds

    async def is_scheduled(self) -> bool:
        """Tell whether the job `process-workflow-queue` is scheduled and active."""
        async with self._database.connected() as connection:
            return bool(await connection.fetchval(SCHEDULED))


def _last_served(organizations: Collection[str], cursor: str) -> str:
    """Return where in the ring the turn ended: it began behind `cursor`, and may have passed the ring's end."""
    return max([one for one in organizations if one <= cursor] or organizations, default=cursor)


class _Past:
    """What executions that go on have behind them, by their ids."""

    def __init__(self) -> None:
        self.records: dict[UUID, list[StepRecord]] = defaultdict(list)
        self.deliveries: dict[UUID, dict[str, Delivery]] = defaultdict(dict)
        self.children: dict[UUID, dict[str, ChildEnd]] = defaultdict(dict)

    def execution(self, row: Mapping[str, Any]) -> Execution:
        key = row["id"]
        return execution_of(row, self.records.get(key, ()), self.deliveries.get(key), self.children.get(key))


async def _past(connection: Any, ids: Sequence[UUID]) -> _Past:
    past = _Past()
    for row in await connection.fetch(RECORDS, ids):
        past.records[row["execution_id"]].append(record_of(row))
    for row in await connection.fetch(DELIVERIES, ids):
        past.deliveries[row["execution_id"]][row["step"]] = Delivery(row["id"], json.loads(row["payload"]))
    for row in await connection.fetch(CHILDREN, ids):
        result = None if row["result"] is None else json.loads(row["result"])
        past.children[row["parent_id"]][row["id"]] = ChildEnd(row["status"], result, row["last_error"])
    return past
