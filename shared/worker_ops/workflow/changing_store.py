"""What an operator does to executions. SQL of `intelliflow workflow retry`, `cancel` and `purge`.

Each call is a transaction over at most `CHUNK` executions and their children. Whoever ends one takes a new token, so
that a worker that has it writes nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from worker_ops.workflow.executions_store import CHUNK
from worker_ops.workflow.settings_store import HINT
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from worker_runtime.postgres import Database

T = TypeVar("T")
# Workers lock executions in an order of their own, so now and then the server makes one of us begin again.
DEADLOCKS = 5

# The table's own trigger does the rest, as when somebody sets the status by hand: a new round, a new message.
REOPEN = """
WITH chosen AS MATERIALIZED (
    SELECT id, msg_id FROM fw_workflow_executions
     WHERE id = ANY ($1::uuid[]) AND status = 'failed' ORDER BY id FOR NO KEY UPDATE
), reopened AS (
    UPDATE fw_workflow_executions AS execution SET status = 'queued', replayed_from = chosen.msg_id
      FROM chosen WHERE execution.id = chosen.id
    RETURNING execution.id
), no_longer_dead AS (
    DELETE FROM pgmq.q_workflow_dlq WHERE message->>'execution_id' IN (SELECT id::text FROM reopened)
)
SELECT id FROM reopened
"""
FAMILY = """
WITH RECURSIVE family AS (
    SELECT id FROM unnest($1::uuid[]) AS id
     UNION
    SELECT child.id FROM family JOIN fw_workflow_executions AS child ON child.parent_id = family.id
)
SELECT id FROM family
"""
LOCK = """
SELECT id, status, msg_id FROM fw_workflow_executions
 WHERE id = ANY ($1::uuid[]) AND status IN ('queued', 'running', 'waiting', 'retry_pending')
 ORDER BY id FOR NO KEY UPDATE
"""
CANCEL = "SELECT fw_workflow_cancel($1::uuid[], $2)"
PURGE = """
WITH ended AS (
    UPDATE fw_workflow_executions
       SET status = 'cancelled', lease_token = lease_token + 1, lease_owner = NULL, completed_at = clock_timestamp(),
           next_retry_at = NULL, last_error = 'CANCELLED: ' || $2::text
     WHERE id = ANY ($1::uuid[])
    RETURNING id
)
DELETE FROM fw_workflow_waits WHERE execution_id IN (SELECT id FROM ended)
"""
DELETE = "DELETE FROM pgmq.q_workflow_execution_queue WHERE msg_id = ANY ($1::bigint[])"
# pgmq has no index by organisation: a stretch of the queue at a time.
QUEUES = ("workflow_execution_queue", "workflow_dlq")
MESSAGES = "SELECT count(*) FROM pgmq.q_{queue} WHERE message->>'organization_id' = $1 AND enqueued_at <= $2"
STRETCH = """
WITH stretch AS MATERIALIZED (
    SELECT msg_id, message->>'organization_id' = $1 AND enqueued_at <= $2 AS of_it
      FROM pgmq.q_{queue} WHERE msg_id > $3 ORDER BY msg_id LIMIT {chunk}
), removed AS (
    DELETE FROM pgmq.q_{queue} WHERE msg_id IN (SELECT msg_id FROM stretch WHERE of_it) RETURNING msg_id
)
SELECT (SELECT max(msg_id) FROM stretch) AS last, (SELECT count(*) FROM removed) AS removed
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """Executions that were cancelled, and those at work that will be at their next step; children among them."""

    cancelled: frozenset[UUID]
    asked: frozenset[UUID]


class ChangingStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reopen(self, executions: Sequence[UUID]) -> set[UUID]:
        """Let those that have failed begin another round; return them."""

        async def reopen(connection: Any) -> set[UUID]:
            reopened = {row["id"] for row in await connection.fetch(REOPEN, executions)}
            await connection.execute(HINT)
            return reopened

        return await self._stubbornly(reopen)

    async def cancel(self, executions: Sequence[UUID], reason: str) -> Ended:
        """End those that nobody works on, archive their messages, and ask the others to end; children, too."""
        return await self._stubbornly(lambda connection: _cancelled(connection, executions, reason))

    async def purge(self, executions: Sequence[UUID], reason: str) -> int:
        """End them all, also under the hands of a worker, and remove their messages; children, too. Return how many."""
        return await self._stubbornly(lambda connection: _purged(connection, executions, reason))

    async def messages(self, queue: str, organization: str, until: datetime) -> int:
        """Count the messages of an organisation in one of `QUEUES`."""
        async with self._database.connected() as connection:
            return int(await connection.fetchval(MESSAGES.format(queue=queue), organization, until))

    async def remove_messages(self, queue: str, organization: str, until: datetime) -> AsyncIterator[int]:
        """Remove its messages of before then from one of `QUEUES`; yield how many, stretch by stretch."""
        statement, last = STRETCH.format(queue=queue, chunk=CHUNK), 0
        while True:
            async with self._database.connected() as connection:
                stretch = await connection.fetchrow(statement, organization, until, last)
            if stretch["last"] is None:
                return
            last = stretch["last"]
            yield stretch["removed"]

    async def _stubbornly(self, change: Callable[[Any], Awaitable[T]]) -> T:
        for _ in range(DEADLOCKS):
            try:
                async with self._database.transaction() as connection:
                    return await change(connection)
            except DatabaseUnavailable as error:
                if not isinstance(error.__cause__, asyncpg.DeadlockDetectedError):
                    raise
        async with self._database.transaction() as connection:
            return await change(connection)


async def _cancelled(connection: Any, executions: Sequence[UUID], reason: str) -> Ended:
    cancelled: set[UUID] = set()
    asked: set[UUID] = set()
    async for rows in _families(connection, executions):
        await connection.execute(CANCEL, [row["id"] for row in rows], reason)
        asked |= {row["id"] for row in rows if row["status"] == "running"}
        cancelled |= {row["id"] for row in rows if row["status"] != "running"}
    return Ended(frozenset(cancelled), frozenset(asked))


async def _purged(connection: Any, executions: Sequence[UUID], reason: str) -> int:
    purged = 0
    async for rows in _families(connection, executions):
        await connection.execute(PURGE, [row["id"] for row in rows], reason)
        await connection.execute(DELETE, [row["msg_id"] for row in rows])
        purged += len(rows)
    return purged


async def _families(connection: Any, executions: Sequence[UUID]) -> AsyncIterator[Sequence[Any]]:
    """Lock executions that are not over, and what they have started, and return them."""
    family = [row["id"] for row in await connection.fetch(FAMILY, executions)]
    for chunk in _chunks(family):
        if rows := await connection.fetch(LOCK, chunk):
            yield rows


def _chunks(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
