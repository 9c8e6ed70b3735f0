"""Executions that are started by others' steps."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import asyncpg

from worker_runtime.outcome import PermanentError
from worker_runtime.postgres import DatabaseUnavailable
from workflow_worker.execution import LeaseLost

if TYPE_CHECKING:
    from uuid import UUID

    from worker_runtime.postgres import Database
    from workflow_worker.execution import Execution

__all__ = ["ChildStore"]

START = """
SELECT fw_workflow_start(organization_id, $3, $4::jsonb, NULL, $5, trace, id, $6)
  FROM fw_workflow_executions WHERE id = $1 AND lease_token = $2 AND status = 'running'
"""
AGAIN_SECONDS = 0.5


class ChildStore:
    """Starts them, waiting out an outage."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(self, parent: Execution, child: UUID, step: str, workflow: str, given: Any) -> UUID:
        """Start `child`, unless it is started already. Raises `PermanentError` for a name that is none, `LeaseLost`."""
        lease = parent.lease
        arguments = (lease.execution_id, lease.token, workflow, json.dumps(given), child, step)
        while True:
            try:
                started = await self._started(workflow, arguments)
            except DatabaseUnavailable:
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            if started is None:
                raise LeaseLost(str(parent.id))
            return started

    async def _started(self, workflow: str, arguments: tuple[Any, ...]) -> UUID | None:
        async with self._database.connected() as connection:
            try:
                started: UUID | None = await connection.fetchval(START, *arguments)
            except asyncpg.NoDataFoundError as error:
                sentence = f"the organisation has no active workflow {workflow}"
                raise PermanentError("UNKNOWN_WORKFLOW", sentence) from error
            except asyncpg.ProgramLimitExceededError as error:
                raise PermanentError("TOO_DEEP", f"{workflow}: {error}") from error
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
                # No wait cures it.
                raise PermanentError("NOT_STARTED", f"PostgreSQL refused it: {type(error).__name__}") from error
        return started
