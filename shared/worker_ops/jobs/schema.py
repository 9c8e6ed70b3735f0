"""Brings the jobs database to the current schema: Procrastinate's own, and on top of it what operators ask for."""

from __future__ import annotations

import functools
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import sql
from yoyo import read_migrations

from worker_ops.migration_error import MigrationError
from worker_ops.migrations import migrating

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from yoyo.migrations import MigrationList

__all__ = ["migrate_jobs", "shipped_migrations"]

SOURCE = "package:worker_ops:jobs/migrations_sql"
# Found, not imported: the start of every command would pay for it.
ENGINE = Path(str(distribution("procrastinate").locate_file("procrastinate"))) / "sql"
# Procrastinate keeps no record of what was applied, so we do.
RECORD = """
CREATE SCHEMA IF NOT EXISTS jobs_ops;
CREATE TABLE IF NOT EXISTS jobs_ops.engine_migrations (
    name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now()
)
"""
APPLIED = "SELECT name FROM jobs_ops.engine_migrations"
NOTE = "INSERT INTO jobs_ops.engine_migrations (name) VALUES (%s)"
IS_THERE = "SELECT to_regclass('procrastinate_jobs') IS NOT NULL"
# A database that somebody else has made is as new as this, or Procrastinate's own instructions make it so.
OLDEST_FOUND = "03.04.00_50_post_add_retry_failed_job_procedure.sql"
IS_NEW_ENOUGH = """
SELECT to_regproc('procrastinate_retry_job_v2') IS NOT NULL AND to_regproc('procrastinate_defer_jobs_v1') IS NOT NULL
   AND to_regproc('procrastinate_retry_job_v1') IS NOT NULL AND to_regproc('procrastinate_fetch_job_v2') IS NOT NULL
"""


def migrate_jobs(database_url: str, announce: Callable[[str], None]) -> list[str]:
    """Apply what is missing and return its names; an empty list means the schema was current.

    Safe to run twice, twice at once (the second waits) and after a run that was killed. Blocks.
    """
    with migrating("JOB_QUEUE_DATABASE_URL", database_url, announce) as schema:
        engine: list[str] = []
        schema.patiently("procrastinate", functools.partial(_bring_engine, schema.connection, announce, engine))
        return engine + schema.apply(shipped_migrations())


def shipped_migrations() -> MigrationList:
    """Return our own migrations of this release, oldest first."""
    return read_migrations(SOURCE)


def _bring_engine(connection: psycopg.Connection, announce: Callable[[str], None], applied: list[str]) -> None:
    files_by_name = {file.name: file for file in (ENGINE / "migrations").glob("*.sql")}
    with connection.transaction():
        connection.execute(RECORD)
        known = {str(row[0]) for row in connection.execute(APPLIED).fetchall()}
        if not known:
            known = _baseline(connection, sorted(files_by_name), announce, applied)
    for name in sorted(files_by_name.keys() - known):
        announce(f"applying {name}")
        _apply(connection, files_by_name[name], [name])
        applied.append(name)


def _baseline(
    connection: psycopg.Connection, names: list[str], announce: Callable[[str], None], applied: list[str]
) -> set[str]:
    """Return what the database has, which has not been written down yet."""
    if connection.execute(IS_THERE).fetchone() == (True,):
        if connection.execute(IS_NEW_ENOUGH).fetchone() != (True,):
            raise MigrationError(
                "this database has a schema of Procrastinate's from before 3.4: apply Procrastinate's own migrations"
                f" up to {OLDEST_FOUND}, then run this again"
            )
        names = [name for name in names if name <= OLDEST_FOUND]
        announce("the database has Procrastinate's schema already; it is kept")
        _note(connection, names)
        return set(names)
    announce("applying procrastinate")
    _apply(connection, ENGINE / "schema.sql", names)
    applied.append("procrastinate")
    return set(names)


def _apply(connection: psycopg.Connection, file: Path, names: list[str]) -> None:
    with connection.transaction():
        connection.execute(sql.SQL(file.read_text(encoding="utf-8")))
        _note(connection, names)


def _note(connection: psycopg.Connection, names: list[str]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(NOTE, [[name] for name in names])
