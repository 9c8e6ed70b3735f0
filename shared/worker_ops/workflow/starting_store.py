"""Starts executions and tells them of events, by the functions that any program may call. SQL of both verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from worker_ops.workflow.rules_store import RulesStore
from worker_ops.workflow.settings_store import HINT, SettingsStore
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

KNOWN = "SELECT EXISTS (SELECT FROM fw_workflow_executions WHERE id = $1 AND created_at < $2)"
NOW = "SELECT clock_timestamp()"
START = "SELECT fw_workflow_start($1, $2, $3::jsonb, $4)"
SIGNAL = "SELECT fw_workflow_signal($1, $2, $3, $4::jsonb, $5)"


class UnknownWorkflow(Exception):
    """The organisation has no active rule of that name, and no worker has had a workflow in Python of that name."""


class StartingStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def settings(self) -> SettingsStore:
        """What the organisation has set."""
        return SettingsStore(self._database)

    @property
    def rules(self) -> RulesStore:
        """What it has defined."""
        return RulesStore(self._database)

    async def start(self, organization: str, workflow: str, given: str, key: str | None) -> tuple[str, bool]:
        """Return the execution's id, and whether it is new; raises `UnknownWorkflow`."""
        try:
            async with self._database.transaction() as connection:
                now = await connection.fetchval(NOW)
                started = await connection.fetchval(START, organization, workflow, given, key)
                known = await connection.fetchval(KNOWN, started, now)
                await connection.execute(HINT)
        except DatabaseUnavailable as error:
            if isinstance(error.__cause__, asyncpg.NoDataFoundError):
                raise UnknownWorkflow(error.__cause__.args[0]) from error
            raise
        return str(started), not known

    async def signal(self, organization: str, event: str, correlation: str, payload: str, key: str | None) -> int:
        """Tell executions of an event, now or when they ask for it; return how many waited."""
        async with self._database.transaction() as connection:
            waited = int(await connection.fetchval(SIGNAL, organization, event, correlation, payload, key))
            await connection.execute(HINT)
        return waited
