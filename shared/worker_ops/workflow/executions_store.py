"""Executions as an operator finds them. SQL of `intelliflow workflow list` and `show`, and of choosing which to change.

Conditions are put together from constants, one for each thing that was asked for: a condition that may be switched off
by its parameter has no index.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker_runtime.postgres import Database

UNFINISHED = ("queued", "running", "waiting", "retry_pending")
STATUSES = (*UNFINISHED, "completed", "failed", "cancelled")
CHUNK = 1_000
BEFORE_ALL = (datetime.min.replace(tzinfo=UTC), UUID(int=0))

# Every organisation that has executions, each found by one look into the index.
ORGANIZATIONS = """
WITH RECURSIVE organization AS (
    (SELECT organization_id AS name FROM fw_workflow_executions ORDER BY organization_id LIMIT 1)
     UNION ALL
    SELECT (SELECT organization_id FROM fw_workflow_executions
             WHERE organization_id > organization.name ORDER BY organization_id LIMIT 1)
      FROM organization WHERE organization.name IS NOT NULL
)
"""
ONLY = "WITH organization AS (SELECT $1::text AS name)"
BRIEF = """execution.id, execution.organization_id, coalesce(rule.name, execution.workflow) AS workflow,
       coalesce(execution.rule_version, execution.workflow_version) AS version, execution.status,
       execution.total_attempts, execution.created_at, execution.started_at, execution.completed_at,
       execution.next_retry_at, execution.last_error, execution.cancel_requested_at"""
ONE = f"""
SELECT {BRIEF}, execution.rule_id, execution.input, execution.result, execution.retry_count, execution.crash_count,
       execution.ready_at, execution.lease_owner, execution.lease_token, execution.heartbeat_at,
       execution.idempotency_key, execution.parent_id, execution.parent_step, execution.round, execution.replayed_from,
       execution.trace, execution.msg_id, clock_timestamp() AS now,
       EXISTS (SELECT FROM pgmq.q_workflow_execution_queue AS message WHERE message.msg_id = execution.msg_id)
           AS has_message
  FROM fw_workflow_executions AS execution LEFT JOIN fw_workflow_rules AS rule ON rule.id = execution.rule_id
 WHERE execution.id = $1
"""
STEPS = """
SELECT step, round, attempt, kind, status, output, error, started_at, finished_at, worker
  FROM fw_workflow_steps WHERE execution_id = $1 ORDER BY started_at, round, attempt, step
"""
WAITS = "SELECT step, event_name, correlation FROM fw_workflow_waits WHERE execution_id = $1 ORDER BY step"
CHILDREN = """
SELECT id, parent_step, status FROM fw_workflow_executions WHERE parent_id = $1 ORDER BY created_at, id LIMIT 1000
"""
STANDING = "SELECT id, status FROM fw_workflow_executions WHERE id = ANY ($1::uuid[])"


@dataclass(frozen=True, slots=True)
class Selection:
    """Executions by what they are; `None` is any. `statuses` are some of `STATUSES`; times are when they were made."""

    organization: str | None = None
    statuses: tuple[str, ...] | None = None
    rule: str | None = None
    error: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def conditions(self, first: int) -> tuple[str, list[object]]:
        """Return SQL beside the organisation's, and its parameters from number `first` on."""
        asked = [
            ("(rule_id IN (SELECT id FROM fw_workflow_rules WHERE name = {0}) OR workflow = {0})", self.rule),
            ("position(lower({0}) IN lower(last_error)) > 0", self.error),
            ("created_at >= {0}", self.created_after),
            ("created_at <= {0}", self.created_before),
        ]
        given = [(condition, value) for condition, value in asked if value is not None]
        parts = [condition.format(f"${number}") for number, (condition, _) in enumerate(given, first)]
        return " AND ".join([*self._of_status, *parts]) or "true", [value for _, value in given]

    @property
    def _of_status(self) -> list[str]:
        # Written out, for an index of some statuses is used only for a condition that names them.
        if self.statuses is None:
            return []
        if not set(self.statuses) <= set(STATUSES):
            raise ValueError(f"{self.statuses} are not statuses of an execution")
        if len(self.statuses) == 1:
            return [f"status = '{self.statuses[0]}'"]
        return [f"status IN ({', '.join(map(repr, self.statuses))})"]


def newest(selection: Selection) -> tuple[str, list[object]]:
    """Return the statement for the latest executions, without its LIMIT, which is the last parameter."""
    conditions, parameters = selection.conditions(2)
    limit = f"${len(parameters) + 2}"
    return (
        f"""
{ONLY if selection.organization is not None else ORGANIZATIONS}
SELECT {BRIEF}
  FROM organization
 CROSS JOIN LATERAL (SELECT * FROM fw_workflow_executions
                      WHERE organization_id = organization.name AND {conditions}
                      ORDER BY created_at DESC LIMIT {limit}::bigint) AS execution
  LEFT JOIN fw_workflow_rules AS rule ON rule.id = execution.rule_id
 WHERE organization.name = $1 OR $1::text IS NULL
 ORDER BY execution.created_at DESC, execution.id
 LIMIT {limit}::bigint
""",
        [selection.organization, *parameters],
    )


def groups(selection: Selection) -> tuple[str, list[object]]:
    """Return the statement that counts executions by what became of them."""
    conditions, parameters = selection.conditions(2)
    whose = "execution.organization_id = $1" if selection.organization is not None else "$1::text IS NULL"
    return (
        f"""
SELECT execution.status, coalesce(rule.name, execution.workflow) AS workflow, execution.code, count(*) AS count,
       min(execution.created_at) AS oldest, max(execution.created_at) AS newest,
       (array_agg(execution.id ORDER BY execution.created_at DESC))[1] AS example
  FROM (SELECT id, organization_id, status, rule_id, workflow, created_at,
               CASE WHEN status NOT IN ('completed', 'cancelled') THEN split_part(last_error, ':', 1) END AS code
          FROM fw_workflow_executions WHERE {conditions}) AS execution
  LEFT JOIN fw_workflow_rules AS rule ON rule.id = execution.rule_id
 WHERE {whose}
 GROUP BY execution.status, coalesce(rule.name, execution.workflow), execution.code
 ORDER BY count DESC, execution.status, workflow, execution.code
""",
        [selection.organization, *parameters],
    )


def page(selection: Selection) -> tuple[str, list[object]]:
    """Return the statement for ids in the order in which they were made, behind the last two parameters."""
    conditions, parameters = selection.conditions(2)
    moment, last = len(parameters) + 2, len(parameters) + 3
    return (
        f"""
SELECT id, created_at FROM fw_workflow_executions
 WHERE organization_id = $1 AND {conditions} AND (created_at, id) > (${moment}::timestamptz, ${last}::uuid)
 ORDER BY created_at, id LIMIT {CHUNK}
""",
        [selection.organization, *parameters],
    )


class ExecutionsStore:
    """Every method raises `DatabaseUnavailable` for what time may cure. Rows have the names of their columns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self) -> datetime:
        """Return the database's time, by which executions are made."""
        async with self._database.connected() as connection:
            moment: datetime = await connection.fetchval("SELECT clock_timestamp()")
        return moment

    async def newest(self, selection: Selection, limit: int) -> list[Any]:
        """Return what is selected, the latest first."""
        statement, parameters = newest(selection)
        async with self._database.connected() as connection:
            return list(await connection.fetch(statement, *parameters, limit))

    async def groups(self, selection: Selection) -> list[Any]:
        """Count what is selected by status, workflow and the code of its error."""
        statement, parameters = groups(selection)
        async with self._database.connected() as connection:
            return list(await connection.fetch(statement, *parameters))

    async def organizations(self) -> list[str]:
        """Return every organisation that has executions."""
        statement = f"{ORGANIZATIONS} SELECT name FROM organization WHERE name IS NOT NULL"
        async with self._database.connected() as connection:
            return [row["name"] for row in await connection.fetch(statement)]

    async def pages(self, selection: Selection) -> AsyncIterator[list[UUID]]:
        """Go once through the ids of what is selected of one organisation, at most `CHUNK` at a time."""
        statement, parameters = page(selection)
        place: tuple[object, object] = BEFORE_ALL
        while True:
            async with self._database.connected() as connection:
                rows = await connection.fetch(statement, *parameters, *place)
            if not rows:
                return
            yield [row["id"] for row in rows]
            place = (rows[-1]["created_at"], rows[-1]["id"])

    async def one(self, execution: str) -> Any | None:
        """Return everything of one execution, and the database's time as `now`; `None` when there is none."""
        async with self._database.connected() as connection:
            return await connection.fetchrow(ONE, execution)

    async def steps(self, execution: str) -> list[Any]:
        """Return its steps, in the order in which they began."""
        return await self._of(STEPS, execution)

    async def waits(self, execution: str) -> list[Any]:
        """Return the events that it waits for."""
        return await self._of(WAITS, execution)

    async def children(self, execution: str) -> list[Any]:
        """Return the executions that its steps started, at most 1,000."""
        return await self._of(CHILDREN, execution)

    async def standing(self, executions: Sequence[str]) -> dict[str, str]:
        """Return the status of each execution that there is."""
        async with self._database.connected() as connection:
            return {str(row["id"]): row["status"] for row in await connection.fetch(STANDING, executions)}

    async def _of(self, statement: str, execution: str) -> list[Any]:
        async with self._database.connected() as connection:
            return list(await connection.fetch(statement, execution))
