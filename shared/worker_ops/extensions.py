"""Prepares a database for workflows: pgmq and pg_cron where the server has them, their schemas from files elsewhere."""

from __future__ import annotations

import hashlib
import re
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from worker_ops.migration_error import MigrationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["prepare_cron", "prepare_pgmq", "require_schemas"]

# Found, not imported: it would bring SQLAlchemy along, at the start of every command.
PGMQ = Path(str(distribution("pgmq").locate_file("pgmq"))) / "sql"
CRON = Path(__file__).with_name("cron.sql")
# How a comment on a schema begins that we have made: pgmq's goes on with its version, cron's with the file's digest.
OUR_PGMQ, OUR_CRON = "By intelliflow migrate, pgmq", "By intelliflow migrate, run by the workflow-worker"
NEW_SCHEMAS = ("pgmq", "cron", "util")

# An empty schema is one that somebody has made for us.
FILLED = """
SELECT EXISTS (SELECT FROM pg_proc WHERE pronamespace = to_regnamespace(name))
    OR EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace(name)) FROM (SELECT %s) AS schema (name)
"""
MAY_CREATE = "SELECT has_database_privilege(current_database(), 'CREATE')"
MAY = "SELECT has_schema_privilege(%s, %s)"
INSTALLABLE = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = %s)"
INSTALLED = "SELECT extversion FROM pg_extension WHERE extname = %s"
# Superusers see it, and only where pg_cron is preloaded.
HOME_OF_PG_CRON = "SELECT setting FROM pg_settings WHERE name = 'cron.database_name'"
NOTED = "SELECT obj_description(to_regnamespace(%s), 'pg_namespace')"
NOTE = "COMMENT ON SCHEMA {} IS {}"


def require_schemas(connection: psycopg.Connection) -> None:
    """Raise `MigrationError`, with the statements that help, where this login may not do what the schemas need."""
    login, database = connection.info.user, connection.info.dbname
    missing = [name for name in NEW_SCHEMAS if not _asked(connection, FILLED, name)]
    if missing and not _asked(connection, MAY_CREATE):
        remedy = f'GRANT CREATE ON DATABASE "{database}" TO "{login}"'
        raise _forbidden(login, f"create the schemas {', '.join(missing)} in the database {database}", remedy)
    for name in {"pgmq", "util"}.difference(missing):
        if not _asked(connection, MAY, name, "CREATE"):
            kinds = (f"SCHEMA {name}", f"ALL TABLES IN SCHEMA {name}", f"ALL SEQUENCES IN SCHEMA {name}")
            remedy = "; ".join(f'GRANT ALL ON {kind} TO "{login}"' for kind in kinds)
            raise _forbidden(login, f"make tables in the schema {name}", remedy)


def prepare_pgmq(connection: psycopg.Connection, announce: Callable[[str], None]) -> None:
    """Install pgmq where it is not: the extension, or its SQL alone. `connection` is in autocommit."""
    tested = (PGMQ / "VERSION").read_text(encoding="utf-8").strip()
    if not _asked(connection, FILLED, "pgmq") and not _extended(connection, "pgmq"):
        with connection.transaction():
            connection.execute((PGMQ / "pgmq.sql").read_bytes())
            _note(connection, "pgmq", f"{OUR_PGMQ} {tested}")
        announce(f"installed pgmq {tested} from its SQL, for this server does not have the extension")
    _compare(connection, tested, announce)


def prepare_cron(connection: psycopg.Connection, announce: Callable[[str], None]) -> None:
    """Make sure of a schema `cron`: pg_cron's where it works for this database, else our own, as this release needs it.

    `connection` is in autocommit. Raises `MigrationError` where the schema is somebody else's.
    """
    if _asked(connection, INSTALLED, "pg_cron"):
        _require_pg_cron(connection)
        return
    if _asked(connection, FILLED, "cron"):
        _refuse_foreign(connection)
        _run_cron_file(connection)
    elif (hindrance := _hindrance(connection)) is not None:
        _run_cron_file(connection)
        announce(f"installed a schema cron of our own, for pg_cron cannot be had: {hindrance}")


def _compare(connection: psycopg.Connection, tested: str, announce: Callable[[str], None]) -> None:
    """Say so where pgmq is another than this release was tested with."""
    noted = str(_asked(connection, NOTED, "pgmq") or "")
    version = _asked(connection, INSTALLED, "pgmq") or noted.removeprefix(OUR_PGMQ).strip()
    if not re.fullmatch(r"\d+(\.\d+)*", str(version)):
        announce(f"the pgmq of this database does not say its version; this release is tested with {tested}")
    elif version != tested:
        relation = "older" if _numbers(str(version)) < _numbers(tested) else "newer"
        announce(f"this database has pgmq {version}, {relation} than {tested}, with which this release is tested")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _require_pg_cron(connection: psycopg.Connection) -> None:
    if not _asked(connection, MAY, "cron", "USAGE"):
        login = connection.info.user
        raise _forbidden(login, "use pg_cron", f'GRANT USAGE ON SCHEMA cron TO "{login}"')


def _refuse_foreign(connection: psycopg.Connection) -> None:
    if not str(_asked(connection, NOTED, "cron")).startswith(OUR_CRON):
        raise MigrationError(
            "this database has a schema cron that is neither pg_cron's nor made by `intelliflow migrate`:"
            " rename it, for the workflow-worker needs that name"
        )


def _run_cron_file(connection: psycopg.Connection) -> None:
    """Run the file, unless it has been run as it is."""
    statements = CRON.read_bytes()
    note = f"{OUR_CRON} {hashlib.sha256(statements).hexdigest()}"
    if _asked(connection, NOTED, "cron") == note:
        return
    with connection.transaction():
        connection.execute(statements)
        _note(connection, "cron", note)


def _hindrance(connection: psycopg.Connection) -> str | None:
    """Create the extension pg_cron, or return why it cannot be."""
    if not _asked(connection, INSTALLABLE, "pg_cron"):
        return "this server does not have it"
    home = _asked(connection, HOME_OF_PG_CRON)
    if home is None:
        return "it is not preloaded here, as far as this login may see (shared_preload_libraries)"
    if home != connection.info.dbname:
        return f"on this server it works in the database {home} only (cron.database_name)"
    return None if _extended(connection, "pg_cron") else "this login may not create the extension"


def _extended(connection: psycopg.Connection, name: str) -> bool:
    """Create an extension if the server has it and the login may."""
    if not _asked(connection, INSTALLABLE, name):
        return False
    try:
        with connection.transaction():
            connection.execute(sql.SQL("CREATE EXTENSION {}").format(sql.Identifier(name)))
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def _forbidden(login: str, deed: str, remedy: str) -> MigrationError:
    return MigrationError(
        f"{login} may not {deed}: have a superuser run `{remedy}`, then run `intelliflow migrate` again"
    )


def _note(connection: psycopg.Connection, schema: str, note: str) -> None:
    connection.execute(sql.SQL(NOTE).format(sql.Identifier(schema), note))


def _asked(connection: psycopg.Connection, question: str, *about: str) -> object:
    row = connection.execute(question.encode(), about).fetchone()
    return row[0] if row else None
