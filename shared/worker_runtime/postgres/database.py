"""A connection to PostgreSQL that is opened when needed, and again after every failure."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
# Tables here are nearly empty in one minute and hold a backlog in the next, faster than statistics follow: every
# statement is written for its index, and the planner may not think otherwise.
BY_INDEX = MappingProxyType({"enable_seqscan": "off", "enable_bitmapscan": "off", "jit": "off"})
# The newest migration this code needs; a newer schema is fine.
NEEDED_MIGRATION = "0013.workflows"
POSTGRES_PORT = 5432
COMMAND_SECONDS = 5.0
CONNECT_SECONDS = 2.0
KEEPALIVE_IDLE_SECONDS = 10
KEEPALIVE_INTERVAL_SECONDS = 3
KEEPALIVE_PROBES = 3
# What asyncpg says of a connection that broke; an "internal" error too, when it broke within a driver's own query.
CONNECTION_FAULTS = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
# SQLSTATE class of statements that no wait can cure: a missing table or column, a missing privilege.
WRONG_STATEMENT = "42"
# And of what is the server's condition whoever asks: connections, resources, an operator, the system, a standby.
SERVER_CONDITIONS = ("08", "53", "57P", "58", "25006")

# A client that is frozen between the halves of a new statement counts as neither idle nor busy: only this ends it and
# frees what it has locked. PostgreSQL has it from version 17 on.
END_LONG_TRANSACTIONS = """
SELECT set_config(name, '300000', false) FROM pg_settings WHERE name = 'transaction_timeout'
"""
MIGRATION_APPLIED = "SELECT EXISTS (SELECT FROM _yoyo_migration WHERE migration_id = $1)"


class DatabaseUnavailable(Exception):
    """The server is gone, busy or slow: the command may or may not have run, and may be repeated."""


class SchemaOutdated(Exception):
    """The database lacks what this release needs: `intelliflow migrate` brings it up to date."""


@dataclass(frozen=True)
class Listener:
    """Whom to call when somebody notifies a channel. Only a hint: nobody is told what was said while we were away."""

    channel: str
    hear: Callable[[], None]


class Database:
    """One connection, lent to one task at a time.

    Every method, here and in the stores that use it, raises `DatabaseUnavailable` for what time may cure, and asyncpg's
    own error for a bug. `settings` are the server's for this connection.
    """

    def __init__(
        self,
        database_url: str,
        *,
        application: str = "intelliflow",
        settings: Mapping[str, str] = NO_SETTINGS,
        listener: Listener | None = None,
        command_seconds: float = COMMAND_SECONDS,
    ) -> None:
        self._database_url = database_url
        self._application = application
        self._settings = settings
        self._listener = listener
        self._command_seconds = command_seconds
        self._lent = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None
        self._connecting: asyncio.Task[asyncpg.Connection] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def where(self) -> str:
        """The server's address for people, without a login."""
        parts = urlsplit(self._database_url)
        return f"{parts.hostname}:{parts.port or POSTGRES_PORT}"

    async def ping(self) -> None:
        """Return when the server answers."""
        async with self.connected() as connection:
            await connection.fetchval("SELECT 1")

    async def schema_is_current(self) -> bool:
        """Tell whether `intelliflow migrate` has brought the database to what this code needs."""
        async with self.connected() as connection:
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
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend the connection; whatever fails in the block makes the next one new."""
        async with self._lent, self._guarded() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend the connection within a transaction, which is rolled back by whatever fails in the block."""
        async with self.connected() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[asyncpg.Connection]:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connected_once()
            yield self._connection
        except asyncpg.LockNotAvailableError as error:
            raise DatabaseUnavailable(f"somebody holds the row: {error}") from error
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
            server_settings={"application_name": self._application},
        )
        _keep_alive(connection)
        # The server gives up first: a statement that waits for a lock must not outlive the connection that sent it, nor
        # may a process that was frozen between two of them keep what it has locked.
        limits = {
            "statement_timeout": str(int(self._command_seconds * 900)),
            "idle_in_transaction_session_timeout": str(int(self._command_seconds * 1000)),
        }
        settings = {**limits, **self._settings}
        await connection.execute(";".join(f"SET {name} = {value}" for name, value in settings.items()))
        await connection.execute(END_LONG_TRANSACTIONS)
        if self._listener is not None:
            hear = self._listener.hear
            await connection.add_listener(self._listener.channel, lambda *_: hear())
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def is_server_s_condition(error: Exception) -> bool:
    """Tell an error that any statement would meet now from one that this statement deserves."""
    return str(getattr(error, "sqlstate", "")).startswith(SERVER_CONDITIONS)


def _keep_alive(connection: asyncpg.Connection) -> None:
    """Let the kernel find a dead peer between commands; asyncpg offers no setting for it."""
    peer = connection._transport.get_extra_info("socket")  # noqa: SLF001
    if peer is None or peer.family == socket.AF_UNIX:
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
