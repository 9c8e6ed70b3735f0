"""Workflows of organisations: which ones an event starts, which events they wait for, and both written down."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from worker_runtime.postgres import DatabaseUnavailable, storable, storable_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from events_worker.effects import PlannedSignal, PlannedStart
    from events_worker.store.transactions import Transactions
    from worker_runtime.postgres import Database

# The handler's name, which is its receipt's.
WORKFLOWS = "workflows"
# Whoever holds an execution's row for so long is frozen.
LOCK_SECONDS = 5.0

# Rules of an organisation that an event's type starts. What a person wrote may hold _ and %, which LIKE would read.
STARTED_BY = """
rule.organization_id = {organization} AND rule.active AND rule.trigger_event IS NOT NULL
AND (rule.trigger_event = {event_type}
     OR (right(rule.trigger_event, 1) = '*' AND starts_with({event_type}, left(rule.trigger_event, -1))))
"""
AWAITED = """
EXISTS (SELECT FROM fw_workflow_awaited AS awaited
         WHERE awaited.organization_id = {organization} AND awaited.event_name = {event_type})
"""


def concern_workflows(organization: str, event_type: str) -> str:
    """Return the SQL condition that an event starts a workflow or is waited for; both arguments are SQL."""
    names = {"organization": organization, "event_type": event_type}
    started_by, awaited = STARTED_BY.format(**names), AWAITED.format(**names)
    return f"(EXISTS (SELECT FROM fw_workflow_rules AS rule WHERE {started_by}) OR {awaited})"


_ASKED = {"organization": "$1", "event_type": "$2"}
RULES = f"""
SELECT rule.id::text, rule.name, rule.current_version, definition.definition->'trigger'->>'when' AS condition
  FROM fw_workflow_rules AS rule
  JOIN fw_workflow_definitions AS definition ON definition.rule_id = rule.id AND version = current_version
 WHERE {STARTED_BY.format(**_ASKED)}
 ORDER BY rule.name
"""
IS_AWAITED = f"SELECT {AWAITED.format(**_ASKED)}"
# What the function inserts is not there yet for the statement that calls it.
START = """
SELECT EXISTS (SELECT FROM fw_workflow_executions WHERE id = $5) AS known,
       fw_workflow_start($1, $2, $3::jsonb, $4, $5, $6) AS id
"""
FAILED_START = """
INSERT INTO fw_workflow_executions
       (id, organization_id, rule_id, rule_version, input, trace, status, last_error, completed_at)
VALUES ($1, $2, $3, $4, $5::jsonb, $6, 'failed', $7, clock_timestamp()) ON CONFLICT DO NOTHING
"""
SIGNAL = "SELECT fw_workflow_signal($1, $2, $3, $4::jsonb, $5)"


class WorkflowRefused(Exception):
    """A workflow cannot be given what it should. Quotes nothing of the event."""


class NoSuchWorkflow(WorkflowRefused):
    """The organisation has none of that name that is active."""


@dataclass(frozen=True, slots=True)
class TriggeredRule:
    """An active rule of an organisation that an event's type starts, where its `condition` holds."""

    id: str
    name: str
    version: int
    condition: str | None


class WorkflowTransaction:
    """What can be done within one transaction; `done` counts it by how it ended."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.done: Counter[str] = Counter()
        self._connection = connection

    async def triggered_rules(self, organization_id: str, event_type: str) -> list[TriggeredRule]:
        """Return the rules that such an event starts, by name."""
        rows = await self._connection.fetch(RULES, storable(organization_id), storable(event_type))
        return [TriggeredRule(*row) for row in rows]

    async def awaits(self, organization_id: str, event_type: str) -> bool:
        """Tell whether workflows of the organisation wait for such events, now or at other times."""
        return bool(await self._connection.fetchval(IS_AWAITED, storable(organization_id), storable(event_type)))

    async def start(self, start: PlannedStart) -> None:
        """Start an execution, unless it was before. Raises `WorkflowRefused`, and then the transaction is lost."""
        key = None if start.key is None else storable(start.key)
        asked = (storable(start.organization_id), storable(start.workflow), _json(start.given), key)
        try:
            row = await self._connection.fetchrow(START, *asked, UUID(start.id), start.trace, timeout=LOCK_SECONDS)
        except asyncpg.NoDataFoundError as error:
            raise NoSuchWorkflow(error.args[0]) from error
        repeated = row["known"] or str(row["id"]) != start.id
        self.done["repeated" if repeated else "started"] += 1

    async def note_failed_start(self, start: PlannedStart, rule: TriggeredRule, error: str) -> None:
        """Leave a failed execution where a person looks for what became of an event."""
        execution = (UUID(start.id), start.organization_id, UUID(rule.id), rule.version)
        await self._connection.execute(FAILED_START, *execution, _json(start.given), start.trace, storable(error))
        self.done["refused"] += 1

    async def signal(self, signal: PlannedSignal) -> None:
        """Tell the executions that wait; with an id that was used before it does nothing."""
        event = (storable(text) for text in (signal.organization_id, signal.event, signal.correlation))
        await self._connection.execute(SIGNAL, *event, _json(signal.data), signal.id, timeout=LOCK_SECONDS)
        self.done["signalled"] += 1


class WorkflowStore:
    """Lends transactions."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[WorkflowTransaction]:
        """Lend one that commits unless the block raises.

        Raises `DatabaseUnavailable` for what time may cure, and `WorkflowRefused` for what nothing does.
        """
        try:
            async with self._transactions.plain() as connection:
                yield WorkflowTransaction(connection)
        except (asyncpg.DeadlockDetectedError, TimeoutError) as error:
            raise DatabaseUnavailable(f"somebody holds an execution: {type(error).__name__}") from error
        except asyncpg.ProgramLimitExceededError as error:
            raise WorkflowRefused("a key or correlation is longer than an index takes") from error


def _json(value: Any) -> str:
    return json.dumps(storable_json(value))


class WakeUpStore:
    """Notifies whoever runs workflows, on a connection of its own. Raises `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tell(self) -> None:
        """Say that there is something to run."""
        async with self._database.connected() as connection:
            await connection.execute("NOTIFY workflow_executions")
