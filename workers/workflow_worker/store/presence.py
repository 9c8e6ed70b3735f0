"""What the workers write into the rows of organisations."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_runtime.postgres import Database

__all__ = ["PresenceStore"]

# So that the trigger tells a worker from a person who resets a stuck one.
BY_A_WORKER = "SET LOCAL intelliflow.worker = 'on'"
# A row that somebody else is writing can wait for the next time.
RAN = """
WITH ran AS (
    SELECT organization_id, size
      FROM unnest($1::text[], $2::integer[]) AS given (organization_id, size)
           JOIN fw_module_settings AS settings USING (organization_id)
     ORDER BY organization_id FOR NO KEY UPDATE OF settings SKIP LOCKED
)
UPDATE fw_module_settings AS settings
   SET worker_running = true, worker_last_run_at = clock_timestamp(), worker_last_batch_size = ran.size
  FROM ran WHERE settings.organization_id = ran.organization_id
"""
RESTS = """
WITH rests AS (
    SELECT organization_id FROM fw_module_settings AS settings
     WHERE worker_running
       AND NOT EXISTS (SELECT FROM fw_workflow_executions AS execution
                        WHERE execution.organization_id = settings.organization_id AND execution.status = 'running')
     ORDER BY organization_id FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE fw_module_settings AS settings SET worker_running = false
  FROM rests WHERE settings.organization_id = rests.organization_id
"""


class PresenceStore:
    """Raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, batches: Mapping[str, int]) -> None:
        """Write the newest batch of each organisation, and that those of which nothing runs any more are at rest."""
        async with self._database.transaction() as connection:
            await connection.execute(BY_A_WORKER)
            await connection.execute(RESTS)
            if batches:
                await connection.execute(RAN, list(batches), list(batches.values()))
