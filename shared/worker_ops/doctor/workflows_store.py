"""What the doctor asks PostgreSQL about workflows. Cheap: what is not over has an index, and dead letters are few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

UNFINISHED = "status IN ('queued', 'running', 'waiting', 'retry_pending')"
OLD = "ready_at < clock_timestamp() - make_interval(secs => $1)"
SCHEDULE = f"""
SELECT fw_workflows_scheduled() AS scheduled,
       (SELECT count(*) FROM fw_workflow_executions WHERE {UNFINISHED}) AS unfinished
"""
# Ready for that long, by why nobody takes them. One that is at work is ready when its lease ends.
LATE = f"""
SELECT coalesce(sum(late) FILTER (WHERE reason = 'disabled'), 0)::bigint AS disabled,
       min(organization) FILTER (WHERE reason = 'disabled') AS a_disabled,
       coalesce(sum(late) FILTER (WHERE reason = 'paused'), 0)::bigint AS paused,
       min(organization) FILTER (WHERE reason = 'paused') AS a_paused,
       coalesce(sum(late) FILTER (WHERE reason IS NULL), 0)::bigint AS late,
       min(organization) FILTER (WHERE reason IS NULL AND late > 0) AS a_late,
       coalesce(sum(lost), 0)::bigint AS lost, min(a_lost::text) AS a_lost
  FROM (SELECT execution.organization_id AS organization,
               CASE WHEN settings.fw_execution_worker_enabled IS NOT TRUE THEN 'disabled'
                    WHEN settings.fw_worker_paused_at IS NOT NULL THEN 'paused' END AS reason,
               late, lost, a_lost
          FROM (SELECT organization_id, count(*) FILTER (WHERE status <> 'running') AS late,
                       count(*) FILTER (WHERE status = 'running') AS lost,
                       min(id::text) FILTER (WHERE status = 'running') AS a_lost
                  FROM fw_workflow_executions WHERE {UNFINISHED} AND {OLD} GROUP BY organization_id) AS execution
          LEFT JOIN fw_module_settings AS settings ON settings.organization_id::text = execution.organization_id)
       AS seen
"""
DEAD = """
SELECT count(*) AS dead, count(*) FILTER (WHERE enqueued_at > clock_timestamp() - interval '1 hour') AS fresh
  FROM pgmq.q_workflow_dlq
"""
# In what is not over, and in what active rules would start.
UNANNOUNCED = f"""
SELECT workflow, count(*) FILTER (WHERE waits) AS waiting
  FROM (SELECT workflow, true AS waits FROM fw_workflow_executions
         WHERE {UNFINISHED} AND workflow IS NOT NULL
         UNION ALL
        SELECT definition.definition->>'workflow', false
          FROM fw_workflow_rules AS rule
          JOIN fw_workflow_definitions AS definition ON definition.rule_id = rule.id
                                                    AND definition.version = rule.current_version
         WHERE rule.active AND jsonb_typeof(definition.definition->'workflow') = 'string') AS named
 WHERE NOT EXISTS (SELECT FROM fw_workflow_code AS code WHERE code.workflow = named.workflow)
 GROUP BY workflow ORDER BY workflow
"""


class WorkflowsView:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def schedule(self) -> dict[str, Any]:
        """Tell whether workers may start anything (`scheduled`), and how much is `unfinished`."""
        return (await self._rows(SCHEDULE))[0]

    async def late(self, seconds: float) -> dict[str, Any]:
        """Count what has been ready for that long, by why: `disabled`, `paused`, `late`, `lost`; `a_late` is one."""
        return (await self._rows(LATE, seconds))[0]

    async def dead(self) -> dict[str, Any]:
        """Count dead letters, and the `fresh` among them: of the last hour."""
        return (await self._rows(DEAD))[0]

    async def unannounced(self) -> list[dict[str, Any]]:
        """Return workflows in Python that no worker has had, and how many executions are `waiting` for one."""
        return await self._rows(UNANNOUNCED)

    async def _rows(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        async with self._database.connected() as connection:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
