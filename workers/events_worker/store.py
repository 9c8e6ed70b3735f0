"""The outbox in PostgreSQL: the only file of this worker with SQL in it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from events_worker.outbox import OutboxEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from events_worker.outbox import Unpublishable

# The newest migration this code needs; a newer schema is fine.
NEEDED_MIGRATION = "0002.outbox-archive"
COMMAND_SECONDS = 5.0
CONNECT_SECONDS = 2.0
KEEPALIVE_IDLE_SECONDS = 10
KEEPALIVE_INTERVAL_SECONDS = 3
KEEPALIVE_PROBES = 3
# What asyncpg says of a connection that broke; an "internal" error too, when it broke within a driver's own query.
CONNECTION_FAULTS = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
# SQLSTATE class of statements that no wait can cure: a missing table or column, a missing privilege.
WRONG_STATEMENT = "42"

MIGRATION_APPLIED = "SELECT EXISTS (SELECT FROM _yoyo_migration WHERE migration_id = $1)"

# OFFSET 0 keeps the planner from writing the payload out twice; the time is text because PostgreSQL knows times that
# Python does not (infinity, before Christ), and one such row must not stop the relay.
PENDING = """
SELECT id, event_type, aggregate_type, aggregate_id, tenant_id, position, metadata::text AS metadata,
       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at,
       octet_length(written.payload) AS payload_size,
       CASE WHEN octet_length(written.payload) <= $2 THEN written.payload END AS payload
  FROM domain_event_outbox AS event
 CROSS JOIN LATERAL (SELECT event.payload::text AS payload OFFSET 0) AS written
 WHERE processed_at IS NULL AND (next_retry_at IS NULL OR next_retry_at <= now())
 ORDER BY position
 LIMIT $1
"""

SETTLE = """
UPDATE domain_event_outbox AS event
   SET status = CASE WHEN verdict.reason IS NULL THEN 'processed' ELSE 'dead_letter' END,
       last_error = verdict.reason,
       processed_at = clock_timestamp()
  FROM unnest($1::uuid[], $2::text[]) AS verdict (id, reason)
 WHERE event.id = verdict.id AND event.processed_at IS NULL
RETURNING event.status
"""

LAG = """
SELECT (SELECT count(*) FROM domain_event_outbox WHERE processed_at IS NULL) AS events,
       (SELECT EXTRACT(epoch FROM clock_timestamp() - created_at)::float8
          FROM domain_event_outbox
         WHERE processed_at IS NULL
         ORDER BY position
         LIMIT 1) AS seconds
"""

# The table's own trigger writes what is deleted to the archive.
ARCHIVE = """
DELETE FROM domain_event_outbox
 WHERE id = ANY (ARRAY(
       SELECT id
         FROM domain_event_outbox
        WHERE processed_at < now() - make_interval(days => $1)
        ORDER BY processed_at
        LIMIT $2
          FOR UPDATE SKIP LOCKED))
"""


class DatabaseUnavailable(Exception):
    """The server is gone, busy or slow: the command may or may not have run, and may be repeated."""


class SchemaOutdated(Exception):
    """The database lacks what this release needs: `intelliflow migrate` brings it up to date."""


@dataclass(frozen=True, slots=True)
class Settled:
    """How many rows one settlement changed; rows another relay settled first are in neither number."""

    published: int
    dead: int


@dataclass(frozen=True, slots=True)
class Lag:
    """Events that are committed and not yet published, and the age of the oldest in seconds."""

    events: int
    seconds: float


class OutboxStore:
    """One connection, opened when needed and again after every failure; for one loop, not for several at once.

    Every method raises `DatabaseUnavailable` for what time may cure, and asyncpg's own error for a bug.
    """

    def __init__(self, database_url: str, *, command_seconds: float = COMMAND_SECONDS) -> None:
        self._database_url = database_url
        self._command_seconds = command_seconds
        self._connection: asyncpg.Connection | None = None
        self._connecting: asyncio.Task[asyncpg.Connection] | None = None

    async def ping(self) -> None:
        """Return when the server answers."""
        async with self._connected() as connection:
            await connection.fetchval("SELECT 1")

    async def schema_is_current(self) -> bool:
        """Tell whether `intelliflow migrate` has brought the database to what this code needs."""
        async with self._connected() as connection:
            try:
                return bool(await connection.fetchval(MIGRATION_APPLIED, NEEDED_MIGRATION))
            except asyncpg.UndefinedTableError:
                return False

    async def refuse_old_schema(self) -> None:
        """Raise `SchemaOutdated` unless the schema is current."""
        if not await self.schema_is_current():
            raise SchemaOutdated(
                f"the database lacks migration {NEEDED_MIGRATION}; run `intelliflow migrate`, then start"
            )

    async def pending(self, limit: int, max_payload_bytes: int) -> list[OutboxEvent]:
        """Return the first `limit` rows that are due, in commit order per aggregate."""
        async with self._connected() as connection:
            rows = await connection.fetch(PENDING, limit, max_payload_bytes)
        return [_event(row) for row in rows]

    async def settle(self, published: Sequence[str], unpublishable: Sequence[Unpublishable]) -> Settled:
        """Record that these are published and those never will be, in one statement. May be repeated."""
        ids = [UUID(event_id) for event_id in published] + [UUID(verdict.event_id) for verdict in unpublishable]
        reasons = [None] * len(published) + [verdict.reason for verdict in unpublishable]
        async with self._connected() as connection:
            statuses = [row["status"] for row in await connection.fetch(SETTLE, ids, reasons)]
        return Settled(published=statuses.count("processed"), dead=statuses.count("dead_letter"))

    async def lag(self) -> Lag:
        """Measure how far the relay is behind the writers."""
        async with self._connected() as connection:
            row = await connection.fetchrow(LAG)
        return Lag(events=row["events"], seconds=max(0.0, row["seconds"] or 0.0))

    async def archive(self, older_than_days: int, limit: int) -> int:
        """Move at most `limit` finished rows to the archive; return how many."""
        async with self._connected() as connection:
            tag = await connection.execute(ARCHIVE, older_than_days, limit)
        return int(tag.removeprefix("DELETE "))

    async def close(self) -> None:
        """Close the connection politely if the server still listens."""
        connection, self._connection = self._connection, None
        if self._connecting is not None:
            self._connecting.cancel()
        if connection is not None:
            try:
                await connection.close(timeout=1)
            except (asyncpg.PostgresError, *CONNECTION_FAULTS):
                connection.terminate()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connected_once()
            yield self._connection
        except (asyncpg.PostgresError, *CONNECTION_FAULTS) as error:
            self._drop()
            if str(getattr(error, "sqlstate", "")).startswith(WRONG_STATEMENT):
                raise
            raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error
        except asyncio.CancelledError:
            # The command is still running on this connection: the next one would meet its answer.
            self._drop()
            raise

    async def _connected_once(self) -> asyncpg.Connection:
        """Connect, or go on where an impatient caller left off: a far server takes longer than a ping may."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        connecting = self._connecting
        try:
            return await asyncio.shield(connecting)
        finally:
            if connecting.done():
                self._connecting = None

    async def _connect(self) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            self._database_url,
            timeout=CONNECT_SECONDS,
            command_timeout=self._command_seconds,
            server_settings={"application_name": "events-worker"},
        )
        _keep_alive(connection)
        # The server gives up first: a statement that waits for a lock must not outlive the connection that sent it.
        await connection.execute(f"SET statement_timeout = {int(self._command_seconds * 900)}")
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _event(row: asyncpg.Record) -> OutboxEvent:
    return OutboxEvent(
        id=str(row["id"]),
        event_type=row["event_type"],
        aggregate_type=row["aggregate_type"],
        aggregate_id=row["aggregate_id"],
        tenant_id=row["tenant_id"],
        payload=row["payload"],
        payload_size=row["payload_size"],
        metadata=row["metadata"],
        created_at=row["created_at"],
        sequence=row["position"],
    )


def _keep_alive(connection: asyncpg.Connection) -> None:
    """Let the kernel find a dead peer between commands; asyncpg offers no setting for it."""
    peer = connection._transport.get_extra_info("socket")  # noqa: SLF001
    if peer is None or peer.family == socket.AF_UNIX:
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
