"""Prepares a database for vectors, where its server has pgvector. The SQL is infra/postgres/vectors.sql."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["prepare_vectors"]

EXTENSION = "vector"
# The first that goes on looking when a filter turned down what the index found.
OLDEST = (0, 8)
SOURCE = Path(__file__).with_name("vectors.sql")
FOUND = "SELECT coalesce(installed_version, default_version) FROM pg_available_extensions WHERE name = %s"
# Which text of the file was run: to run it in vain would wait for whoever writes to the table.
HAS_DOCUMENTS = "SELECT to_regclass('document') IS NOT NULL"
RECORDED = "SELECT obj_description(to_regclass('document_vector'))"
RECORD = "COMMENT ON TABLE document_vector IS {}"


def prepare_vectors(connection: psycopg.Connection, announce: Callable[[str], None]) -> None:
    """Make the table of vectors what this release needs, or say why there is none. `connection` is in autocommit."""
    if reason := _hindrance(connection):
        announce(f"documents can be searched by words only: {reason}")
        return
    statements = SOURCE.read_text(encoding="utf-8")
    digest = hashlib.sha256(statements.encode()).hexdigest()
    if connection.execute(RECORDED).fetchone() == (digest,) or connection.execute(HAS_DOCUMENTS).fetchone() == (False,):
        return
    try:
        with connection.transaction():
            connection.execute(statements.encode())
            connection.execute(sql.SQL(RECORD).format(digest))
    except psycopg.errors.InsufficientPrivilege:
        announce(
            "documents can be searched by words only: this login may not do it. Have a superuser run"
            f" `CREATE EXTENSION {EXTENSION}` in this database, then run `intelliflow migrate` again"
        )


def _hindrance(connection: psycopg.Connection) -> str | None:
    row = connection.execute(FOUND, [EXTENSION]).fetchone()
    if row is None:
        return "this server has no pgvector; install it there, then run `intelliflow migrate` again"
    version = str(row[0])
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST:
        return f"pgvector {version} is too old; update it to 0.8, then run `intelliflow migrate` again"
    return None
