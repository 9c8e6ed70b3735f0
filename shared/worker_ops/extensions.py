"""Prepares a database for workflows: pgmq and pg_cron where the server has them, their schemas from files elsewhere."""

from __future__ import annotations

import hashlib
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

__all__ = ["prepare_cron", "prepare_pgmq"]

# Found, not imported: it would bring SQLAlchemy along, at the start of every command.
PGMQ = Path(str(distribution("pgmq").locate_file("pgmq"))) / "sql"
CRON = Path(__file__).with_name("cron.sql")
HAS_SCHEMA = "SELECT to_regnamespace(%s) IS NOT NULL"
INSTALLABLE = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = %s)"
INSTALLED = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = %s)"
NOTED = "SELECT obj_description(to_regnamespace(%s), 'pg_namespace')"
NOTE = "COMMENT ON SCHEMA {} IS {}"


def prepare_pgmq(connection: psycopg.Connection, announce: Callable[[str], None]) -> None:
    """Install pgmq where it is not: the extension, or its SQL alone. `connection` is in autocommit."""
    if _told(connection, HAS_SCHEMA, "pgmq"):
        return
    with connection.transaction():
        if _told(connection, INSTALLABLE, "pgmq"):
            connection.execute("CREATE EXTENSION pgmq")
            return
        version = (PGMQ / "VERSION").read_text(encoding="utf-8").strip()
        connection.execute((PGMQ / "pgmq.sql").read_bytes())
        connection.execute(sql.SQL(NOTE).format(sql.Identifier("pgmq"), f"pgmq {version}, by intelliflow migrate"))
    announce(f"installed pgmq {version} from its SQL, for this server does not have the extension")


def prepare_cron(connection: psycopg.Connection, announce: Callable[[str], None]) -> None:
    """Make our own schema `cron` what this release needs, unless pg_cron is here. `connection` is in autocommit."""
    if _told(connection, INSTALLED, "pg_cron"):
        return
    statements = CRON.read_bytes()
    note = f"Run by the workflow-worker. {hashlib.sha256(statements).hexdigest()}"
    if connection.execute(NOTED, ["cron"]).fetchone() == (note,):
        return
    with connection.transaction():
        connection.execute(statements)
        connection.execute(sql.SQL(NOTE).format(sql.Identifier("cron"), note))
    announce("installed the schema cron, for this database does not have pg_cron")


def _told(connection: psycopg.Connection, question: str, name: str) -> bool:
    row = connection.execute(question, [name]).fetchone()
    return bool(row and row[0])
