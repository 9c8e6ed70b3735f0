"""Brings a database to the current schema. The SQL is in infra/postgres/migrations; yoyo keeps the record of it."""

from __future__ import annotations

import functools
import os
import socket
import time
import uuid
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from yoyo import read_migrations
from yoyo.backends import PostgresqlPsycopgBackend

from worker_ops.extensions import prepare_cron, prepare_pgmq, require_schemas
from worker_ops.migration_error import DatabaseUnreachable, MigrationError
from worker_ops.vectors import prepare_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from yoyo.migrations import Migration, MigrationList

__all__ = ["DatabaseUnreachable", "MigrationError", "Schema", "migrate", "migrating", "shipped_migrations"]

SOURCE = "package:worker_ops:migrations_sql"
RECORD = "_yoyo_migration"
OLDEST_SERVER = 15
LOOK_AGAIN_SECONDS = 0.2
# Writers may be held up for the first and are free for the second, in turns.
LOCK_WAIT_SECONDS = 1
LOCK_PAUSE_SECONDS = 2
GIVE_UP_SECONDS = 600
# Any number will do, as long as it never changes: it is the name of the lock.
ADVISORY_LOCK = 4_602_519_830_216


def migrate(database_url: str, announce: Callable[[str], None]) -> list[str]:
    """Apply what is missing and return its names; an empty list means the schema was current.

    Safe to run twice, twice at once (the second waits) and after a run that was killed. `database_url` is any
    `postgresql://` URL of a direct connection: a transaction pooler would not hold the lock. Blocks.
    """
    with migrating("DATABASE_URL", database_url, announce) as schema:
        require_schemas(schema.connection)
        for name, prepare in (("pgmq", prepare_pgmq), ("cron.sql", prepare_cron)):
            schema.patiently(name, functools.partial(prepare, schema.connection, announce))
        applied = schema.apply(shipped_migrations())
        schema.patiently("vectors.sql", lambda: prepare_vectors(schema.connection, announce))
        return applied


def shipped_migrations() -> MigrationList:
    """Return the migrations of this release, oldest first."""
    return read_migrations(SOURCE)


class Schema:
    """A database whose schema nobody else changes meanwhile."""

    def __init__(self, backend: _Backend, announce: Callable[[str], None]) -> None:
        self._backend = backend
        self._announce = announce

    @property
    def connection(self) -> psycopg.Connection:
        """The connection, in autocommit."""
        connection: psycopg.Connection = self._backend.connection
        return connection

    def apply(self, shipped: MigrationList) -> list[str]:
        """Apply what is missing of the migrations and return their names."""
        missing = self._backend.to_apply(shipped)
        for migration in missing:
            self._announce(f"applying {migration.id}")
            # An index that is built concurrently only waits, and nobody waits for it.
            patience = f"{LOCK_WAIT_SECONDS}s" if migration.use_transactions else "0"
            self.patiently(migration.id, functools.partial(self._backend.apply_one, migration), patience)
        return [migration.id for migration in missing]

    def patiently(self, name: str, apply: Callable[[], None], patience: str = f"{LOCK_WAIT_SECONDS}s") -> None:
        """Apply something, never queueing for a lock for long: every writer would queue behind it."""
        self.connection.execute(f"SET lock_timeout = '{patience}'".encode())
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                apply()
            except psycopg.errors.LockNotAvailable as error:
                if time.monotonic() > give_up:
                    remedy = "end transactions that are idle, and run it again"
                    reason = f"a table was in use for {GIVE_UP_SECONDS} s: {remedy}"
                    raise MigrationError(f"migration {name} was not applied: {reason}") from error
                self._announce(f"{name} waits for a moment in which nobody uses its tables")
                time.sleep(LOCK_PAUSE_SECONDS)
            except psycopg.Error as error:
                raise MigrationError(f"migration {name} failed and was rolled back: {error}") from error
            else:
                return


@contextmanager
def migrating(variable: str, database_url: str, announce: Callable[[str], None]) -> Iterator[Schema]:
    """Connect and wait until nobody else migrates; `variable` is where the URL came from. Blocks."""
    with _connected(variable, database_url) as backend, _exclusive(backend, announce):
        yield Schema(backend, announce)


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]  # yoyo is published without types
    """yoyo's bookkeeping on one connection of ours, so that a migration and its record commit together.

    The stock backend splits the URL itself (several hosts and percent-encoded paths are lost on it), records a
    migration in a second transaction, and keeps a lock row that outlives a killed process for ever.
    """

    def connect(self, dburi: str) -> psycopg.Connection:
        return psycopg.connect(dburi, autocommit=True, connect_timeout=10, application_name="intelliflow migrate")

    def copy(self) -> AbstractContextManager[_Backend]:
        return nullcontext(self)

    def lock(self, timeout: float = 0) -> AbstractContextManager[None]:
        del timeout
        return nullcontext()

    def list_tables(self, **_: object) -> list[str]:
        found = self.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        return [row[0] for row in found.fetchall()]

    def apply_one(self, migration: Migration, *, force: bool = False, mark: bool = True) -> None:
        if not migration.use_transactions:
            super().apply_one(migration, force=force, mark=mark)
            return
        with self.transaction():
            super().apply_one(migration, force=force, mark=mark)

    def get_log_data(self, migration: Migration | None = None, operation: str = "apply") -> dict[str, Any]:
        # The stock one asks for the user's name, which a container with an arbitrary uid has not, and for the
        # host's domain name, which may take the resolver's whole timeout.
        return {
            "id": str(uuid.uuid1()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": f"uid {os.getuid()}",
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }


@contextmanager
def _connected(variable: str, database_url: str) -> Iterator[_Backend]:
    try:
        backend = _Backend(database_url, RECORD)
    except psycopg.OperationalError as error:
        raise DatabaseUnreachable(f"cannot connect to PostgreSQL: {error}") from error
    except psycopg.ProgrammingError as error:
        # Not the driver's words: they quote the password.
        raise MigrationError(f"{variable} is not a postgresql:// URL that can be read") from error
    with backend:
        _refuse_old_server(backend)
        yield backend


def _refuse_old_server(backend: _Backend) -> None:
    major = backend.connection.info.server_version // 10_000
    if major < OLDEST_SERVER:
        raise MigrationError(f"PostgreSQL {OLDEST_SERVER} or newer is needed, this is {major}")


@contextmanager
def _exclusive(backend: _Backend, announce: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock until the connection ends: the server frees it however this process dies."""
    if not _locked(backend):
        announce("another migration of this database is running, waiting for it")
        # Not in one statement: an index that the other builds concurrently waits for every statement that is older.
        while not _locked(backend):
            time.sleep(LOOK_AGAIN_SECONDS)
    yield


def _locked(backend: _Backend) -> bool:
    return bool(backend.connection.execute("SELECT pg_try_advisory_lock(%s)", [ADVISORY_LOCK]).fetchone()[0])
