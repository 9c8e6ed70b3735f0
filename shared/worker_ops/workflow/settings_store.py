"""What each organisation has set for its workflows. SQL of `intelliflow workflow settings`, `pause` and `resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_runtime.postgres import Database

# Of the executions that are not over, by the index of those.
LOAD = """
SELECT count(*) FILTER (WHERE status = 'running') AS at_work,
       count(*) FILTER (WHERE status <> 'running' AND ready_at <= clock_timestamp()) AS ready,
       count(*) FILTER (WHERE status <> 'running' AND ready_at > clock_timestamp()) AS later
  FROM fw_workflow_executions
 WHERE organization_id = settings.organization_id::text
   AND status IN ('queued', 'running', 'waiting', 'retry_pending')
"""
SOME = f"""
SELECT settings.organization_id::text AS organization, fw_execution_worker_enabled AS enabled,
       fw_worker_batch_size AS batch_size, fw_worker_visibility_timeout_seconds AS visibility_timeout,
       fw_worker_max_concurrency AS max_concurrency, fw_worker_paused_at AS paused_at,
       fw_worker_pause_reason AS pause_reason, worker_running, worker_last_run_at, worker_last_batch_size,
       load.at_work, load.ready, load.later
  FROM fw_module_settings AS settings CROSS JOIN LATERAL ({LOAD}) AS load
 WHERE $1::text IS NULL OR settings.organization_id::text = $1
 ORDER BY settings.organization_id
"""
ADD = "INSERT INTO fw_module_settings (organization_id) VALUES ($1) ON CONFLICT (organization_id) DO NOTHING"
CHANGE = """
UPDATE fw_module_settings
   SET fw_execution_worker_enabled = coalesce($2::boolean, fw_execution_worker_enabled),
       fw_worker_batch_size = coalesce($3::integer, fw_worker_batch_size),
       fw_worker_visibility_timeout_seconds = coalesce($4::integer, fw_worker_visibility_timeout_seconds),
       fw_worker_max_concurrency = coalesce($5::integer, fw_worker_max_concurrency)
 WHERE organization_id = $1
"""
PAUSE = """
UPDATE fw_module_settings
   SET fw_worker_paused_at = coalesce(fw_worker_paused_at, clock_timestamp()), fw_worker_pause_reason = $2
 WHERE organization_id = $1
RETURNING true
"""
RESUME = """
UPDATE fw_module_settings SET fw_worker_paused_at = NULL, fw_worker_pause_reason = NULL
 WHERE organization_id = $1
RETURNING true
"""
SCHEDULED = "SELECT fw_workflows_scheduled()"
# Workers poll by themselves; told, they look at once.
HINT = "SELECT pg_notify('workflow_executions', '')"
SETTINGS = ("enabled", "batch_size", "visibility_timeout", "max_concurrency")


class SettingsStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def some(self, organization: str | None = None) -> list[Any]:
        """Return the settings of an organisation, or of all, with what their executions are at."""
        async with self._database.connected() as connection:
            return list(await connection.fetch(SOME, organization))

    async def change(self, organization: str, changes: Mapping[str, object]) -> None:
        """Set those of `SETTINGS` that are not `None`, for an organisation that may be new."""
        async with self._database.transaction() as connection:
            await connection.execute(ADD, organization)
            await connection.execute(CHANGE, organization, *(changes[name] for name in SETTINGS))
            await connection.execute(HINT)

    async def pause(self, organization: str, reason: str) -> bool:
        """Let nothing of it go on any more; tell whether there is such an organisation."""
        async with self._database.connected() as connection:
            return bool(await connection.fetchval(PAUSE, organization, reason))

    async def resume(self, organization: str) -> bool:
        """Let it go on; tell whether there is such an organisation."""
        async with self._database.transaction() as connection:
            known = bool(await connection.fetchval(RESUME, organization))
            await connection.execute(HINT)
        return known

    async def scheduled(self) -> bool:
        """Tell whether the job `process-workflow-queue`, without which nothing starts, is scheduled and active."""
        async with self._database.connected() as connection:
            return bool(await connection.fetchval(SCHEDULED))
