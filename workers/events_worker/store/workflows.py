"""Workflows of organisations: which ones an event starts, which events they wait for, and both written down."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from events_worker.effects import FailedStart, PlannedSignal, PlannedStart
from worker_runtime.postgres import DatabaseUnavailable, storable, storable_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from events_worker.effects import WorkflowEffect
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


CONCERNS = f"""
SELECT asked.number, {AWAITED.format(organization="asked.organization", event_type="asked.event_type")} AS awaited,
       rule.id::text, rule.name, definition.definition->'trigger'->>'when' AS condition
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (organization, event_type, number)
  LEFT JOIN (fw_workflow_rules AS rule
             JOIN fw_workflow_definitions AS definition
               ON definition.rule_id = rule.id AND definition.version = rule.current_version)
    ON {STARTED_BY.format(organization="asked.organization", event_type="asked.event_type")}
 ORDER BY asked.number, rule.name
"""
# What the function inserts is not there yet for the statement that calls it.
START = """
SELECT EXISTS (SELECT FROM fw_workflow_executions AS execution WHERE execution.id = asked.id)
       OR asked.id <> fw_workflow_start(organization, workflow, given, key, asked.id, trace) AS repeated
  FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::text[], $5::uuid[], $6::text[])
       AS asked (organization, workflow, given, key, id, trace)
"""
FAILED_START = """
INSERT INTO fw_workflow_executions
       (id, organization_id, rule_id, rule_version, input, trace, status, last_error, completed_at)
SELECT $3, $1, id, current_version, $4::jsonb, $5, 'failed', $6, clock_timestamp()
  FROM fw_workflow_rules WHERE organization_id = $1 AND name = $2
    ON CONFLICT DO NOTHING
"""
# A name that is none, a text that no index takes, and more than an execution is given.
REFUSALS = (asyncpg.NoDataFoundError, asyncpg.ProgramLimitExceededError, asyncpg.CheckViolationError)
SIGNAL = "SELECT fw_workflow_signal($1, $2, $3, $4::jsonb, $5)"


class WorkflowRefused(Exception):
    """A workflow cannot be given what the routing rule says; quotes nothing of the event."""

    def __init__(self, sentence: str, rule: str) -> None:
        super().__init__(sentence)
        self.rule = rule


class NoSuchWorkflow(WorkflowRefused):
    """The organisation has none of that name that is active."""


@dataclass(frozen=True, slots=True)
class TriggeredRule:
    """An active rule of an organisation that an event's type starts, where its `condition` holds."""

    id: str
    name: str
    condition: str | None


@dataclass(frozen=True, slots=True)
class Concern:
    """What an event's type means to its organisation's workflows: the rules that it starts, and whether any wait."""

    rules: Sequence[TriggeredRule]
    awaited: bool


class WorkflowStore:
    """Every method raises `DatabaseUnavailable` for what time may cure, and may be repeated."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def concerns(self, asked: Sequence[tuple[str, str]]) -> list[Concern]:
        """Return the concern of each organisation and event type, in order; rules are ordered by name."""
        columns = [[storable(text) for text in column] for column in zip(*asked, strict=True)]
        async with self._transaction() as connection:
            rows = await connection.fetch(CONCERNS, *columns)
        return [_concern(list(of_one)) for _, of_one in groupby(rows, key=lambda row: row["number"])]

    async def start_together(self, starts: Sequence[PlannedStart]) -> Counter[str]:
        """Start executions in one commit or none; count which were `started` and which `repeated`.

        Raises `WorkflowRefused` when one of them is, without saying which.
        """
        # In order, so that processes that start the same wait for each other instead of deadlocking.
        ordered = sorted(starts, key=lambda start: (start.key or "", start.id))
        async with self._transaction() as connection:
            return await _start(connection, ordered)

    async def carry_out(self, effects: Sequence[WorkflowEffect]) -> Counter[str]:
        """Do it all in one commit or nothing; count what was done. Raises `WorkflowRefused` with the rule that was."""
        done: Counter[str] = Counter()
        async with self._transaction() as connection:
            for effect in effects:
                try:
                    done += await _carry_out(connection, effect)
                except REFUSALS as error:
                    raise _refusal(error, effect.rule) from error
        return done

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[asyncpg.Connection]:
        try:
            async with self._transactions.plain() as connection:
                yield connection
        except (asyncpg.DeadlockDetectedError, TimeoutError) as error:
            raise DatabaseUnavailable(f"somebody holds an execution: {type(error).__name__}") from error
        except REFUSALS as error:
            raise _refusal(error) from error


async def _carry_out(connection: asyncpg.Connection, effect: WorkflowEffect) -> Counter[str]:
    match effect:
        case PlannedStart():
            return await _start(connection, [effect])
        case FailedStart(start, error):
            which = (storable(start.organization_id), start.workflow, UUID(start.id))
            await connection.execute(FAILED_START, *which, _json(start.given), start.trace, storable(error))
            return Counter(refused=1)
        case PlannedSignal():
            about = (storable(text) for text in (effect.organization_id, effect.event, effect.correlation))
            await connection.execute(SIGNAL, *about, _json(effect.data), effect.id, timeout=LOCK_SECONDS)
            return Counter(signalled=1)


async def _start(connection: asyncpg.Connection, starts: Sequence[PlannedStart]) -> Counter[str]:
    rows = [
        (
            storable(start.organization_id),
            storable(start.workflow),
            _json(start.given),
            None if start.key is None else storable(start.key),
            UUID(start.id),
            start.trace,
        )
        for start in starts
    ]
    found = await connection.fetch(START, *map(list, zip(*rows, strict=True)), timeout=LOCK_SECONDS)
    return Counter("repeated" if row["repeated"] else "started" for row in found)


def _refusal(error: asyncpg.PostgresError, rule: str = "") -> WorkflowRefused:
    if isinstance(error, asyncpg.NoDataFoundError):
        return NoSuchWorkflow(error.args[0], rule)
    if isinstance(error, asyncpg.CheckViolationError):
        return WorkflowRefused("a workflow is given, or told, 4 MiB at most", rule)
    return WorkflowRefused("a key or correlation is longer than an index takes", rule)


def _concern(rows: Sequence[asyncpg.Record]) -> Concern:
    rules = [TriggeredRule(row["id"], row["name"], row["condition"]) for row in rows if row["id"]]
    return Concern(rules, rows[0]["awaited"])


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
