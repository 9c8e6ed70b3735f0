"""The dead letters of workflows. SQL of `intelliflow workflow dlq`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

# A message is whatever somebody sent: only what looks like an execution's id is looked up.
NEWEST = """
SELECT dead.msg_id, dead.enqueued_at, dead.message->>'execution_id' AS execution_id,
       dead.message->>'organization_id' AS organization, dead.message->>'error' AS error,
       dead.message->>'total_attempts' AS total_attempts, dead.message->>'failed_at' AS failed_at,
       coalesce(rule.name, execution.workflow, dead.message->>'workflow') AS workflow, execution.status
  FROM (SELECT *, CASE WHEN message->>'execution_id' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                       THEN (message->>'execution_id')::uuid END AS execution
          FROM pgmq.q_workflow_dlq
         WHERE $1::text IS NULL OR message->>'organization_id' = $1
         ORDER BY msg_id DESC LIMIT $2) AS dead
  LEFT JOIN fw_workflow_executions AS execution ON execution.id = dead.execution
  LEFT JOIN fw_workflow_rules AS rule ON rule.id = execution.rule_id
 ORDER BY dead.msg_id DESC
"""
GROUPS = """
SELECT count(*) AS count, min(enqueued_at) AS oldest,
       (array_agg(coalesce(message->>'execution_id', msg_id::text) ORDER BY msg_id))[1] AS example,
       (array_agg(coalesce(message->>'error', '') ORDER BY msg_id))[1] AS error
  FROM pgmq.q_workflow_dlq GROUP BY split_part(message->>'error', ':', 1)
"""


class DeadStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, organization: str | None, limit: int) -> list[Any]:
        """Return dead letters, the latest first."""
        async with self._database.connected() as connection:
            return list(await connection.fetch(NEWEST, organization, limit))

    async def groups(self) -> list[Any]:
        """Count dead letters by what they died of, each with its oldest as an example."""
        async with self._database.connected() as connection:
            return list(await connection.fetch(GROUPS))
