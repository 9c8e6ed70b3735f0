"""Leases that are kept, and what the rows of organisations say of who is at work for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workflow_worker.store.ledger import Standing
from workflow_worker.store.rows import ALLOWED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from worker_runtime.postgres import Database
    from workflow_worker.execution import Lease

__all__ = ["LeaseStore"]

RENEW = f"""
WITH held AS (
    SELECT execution.id, given.seconds
      FROM unnest($1::uuid[], $2::bigint[], $3::integer[]) AS given (id, token, seconds)
           JOIN fw_workflow_executions AS execution ON execution.id = given.id AND execution.lease_token = given.token
     WHERE execution.status = 'running'
     -- Whom somebody else holds for long shall not cost all others their leases.
     ORDER BY execution.id FOR NO KEY UPDATE OF execution SKIP LOCKED
), renewed AS (
    UPDATE fw_workflow_executions AS execution
       SET ready_at = now() + make_interval(secs => held.seconds), heartbeat_at = now()
      FROM held WHERE execution.id = held.id
    RETURNING execution.id, execution.msg_id, execution.ready_at
), mirrored AS (
    UPDATE pgmq.q_workflow_execution_queue AS message SET vt = renewed.ready_at
      FROM renewed WHERE message.msg_id = renewed.msg_id
)
SELECT execution.id, cancel_requested_at IS NOT NULL AS cancel_requested,
       coalesce({ALLOWED}, false) AND (SELECT fw_workflows_scheduled()) AS may_go_on,
       EXISTS (SELECT FROM renewed WHERE renewed.id = execution.id) AS renewed
  FROM unnest($1::uuid[], $2::bigint[]) AS given (id, token)
       JOIN fw_workflow_executions AS execution ON execution.id = given.id AND execution.lease_token = given.token
       LEFT JOIN fw_module_settings AS settings USING (organization_id)
 WHERE execution.status = 'running'
"""


class LeaseStore:
    """Raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def renew(self, leases: Sequence[tuple[Lease, int]]) -> Mapping[UUID, Standing]:
        """Lengthen leases to so many seconds from now; those that are not in the answer are lost."""
        ids, tokens = [one.execution_id for one, _ in leases], [one.token for one, _ in leases]
        async with self._database.connected() as connection:
            rows = await connection.fetch(RENEW, ids, tokens, [seconds for _, seconds in leases])
        return {row["id"]: Standing(row["cancel_requested"], row["may_go_on"], row["renewed"]) for row in rows}
