"""What `intelliflow migrate` does where pgmq, pg_cron, or the right to make schemas is wanting."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from embedded_stack.postgres import create_database, drop_database
from worker_ops import extensions
from worker_ops.extensions import CRON, PGMQ
from worker_ops.migrations import MigrationError, migrate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION = (PGMQ / "VERSION").read_text().strip()
OUR_PGMQ = f"installed pgmq {VERSION} from its SQL, for this server does not have the extension"
OUR_CRON = "installed a schema cron of our own, for pg_cron cannot be had: this server does not have it"
JOBS = "SELECT jobname, schedule, active, username = current_user FROM cron.job"


@pytest.fixture
def empty_database(migrated_template: tuple[str, str]) -> Iterator[str]:
    server_url, _ = migrated_template
    name = f"empty_{uuid4().hex}"
    create_database(server_url, name)
    yield server_url.rsplit("/", 1)[0] + f"/{name}"
    drop_database(server_url, name)


@pytest.fixture
def owner(empty_database: str) -> Iterator[str]:
    """The database's address for a login of its own that owns what it makes and may do nothing else."""
    name = f"owner_{uuid4().hex}"
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'p'").format(sql.Identifier(name)))
        connection.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(sql.Identifier(name)))
    parts = urlsplit(empty_database)
    yield parts._replace(netloc=f"{name}:p@{parts.hostname}:{parts.port}").geturl()
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP OWNED BY {0}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("DROP ROLE {0}").format(sql.Identifier(name)))


def asked(url: str, question: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(question.encode()).fetchall()


def do(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements.encode())


def remedy_of(error: pytest.ExceptionInfo[MigrationError]) -> str:
    return str(error.value).split("`")[1]


def test_what_is_installed_is_said_once_and_its_version_recorded(empty_database: str) -> None:
    said: list[str] = []
    migrate(empty_database, said.append)
    assert said[:2] == [OUR_PGMQ, OUR_CRON]
    notes = asked(empty_database, "SELECT obj_description(to_regnamespace('pgmq'), 'pg_namespace')")
    assert notes == [(f"By intelliflow migrate, pgmq {VERSION}",)]
    assert asked(empty_database, JOBS) == [("process-workflow-queue", "* * * * *", True, True)]
    again: list[str] = []
    assert migrate(empty_database, again.append) == []
    assert again == []


def test_four_at_once_install_once(empty_database: str) -> None:
    said: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: migrate(empty_database, said.append), range(4)))
    assert (said.count(OUR_PGMQ), said.count(OUR_CRON)) == (1, 1)
    assert len(asked(empty_database, JOBS)) == 1


def test_a_newer_file_is_run_and_keeps_the_jobs(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(empty_database, print)
    do(empty_database, "SELECT cron.schedule('mine', '5 seconds', 'SELECT 1'), cron.alter_job(1, active := false)")
    before = asked(empty_database, "SELECT * FROM cron.job JOIN cron.tick USING (jobid)")
    newer = tmp_path / "cron.sql"
    newer.write_text(CRON.read_text() + "ALTER TABLE cron.tick ADD COLUMN IF NOT EXISTS extra integer;\n")
    monkeypatch.setattr(extensions, "CRON", newer)
    for _ in range(2):
        assert migrate(empty_database, print) == []
    after = asked(empty_database, "SELECT * FROM cron.job JOIN cron.tick USING (jobid)")
    assert after == [(*row, None) for row in before]


def test_a_login_that_may_make_no_schemas_is_told_what_helps(empty_database: str, owner: str) -> None:
    with pytest.raises(MigrationError, match="may not create the schemas pgmq, cron, util in the database") as error:
        migrate(owner, print)
    assert asked(owner, "SELECT nspname::text FROM pg_namespace WHERE nspname IN ('pgmq', 'cron', 'util')") == []
    do(empty_database, remedy_of(error))
    assert migrate(owner, print)
    assert asked(owner, JOBS) == [("process-workflow-queue", "* * * * *", True, True)]
    do(empty_database, remedy_of(error).replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
    assert migrate(owner, print) == []


def test_a_newer_file_needs_no_right_to_make_schemas(
    empty_database: str, owner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MigrationError) as error:
        migrate(owner, print)
    do(empty_database, remedy_of(error))
    migrate(owner, print)
    do(empty_database, remedy_of(error).replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
    newer = tmp_path / "cron.sql"
    newer.write_text(CRON.read_text() + "COMMENT ON TABLE cron.tick IS 'newer';\n")
    monkeypatch.setattr(extensions, "CRON", newer)
    migrate(owner, print)
    assert asked(owner, "SELECT obj_description('cron.tick'::regclass)") == [("newer",)]


def test_a_pgmq_of_another_login_is_told_what_helps(empty_database: str, owner: str) -> None:
    do(empty_database, (PGMQ / "pgmq.sql").read_text())
    do(empty_database, f'GRANT CREATE ON DATABASE "{urlsplit(owner).path[1:]}" TO "{urlsplit(owner).username}"')
    with pytest.raises(MigrationError, match="may not make tables in the schema pgmq") as error:
        migrate(owner, print)
    do(empty_database, remedy_of(error))
    said: list[str] = []
    assert migrate(owner, said.append)
    assert said[0] == f"the pgmq of this database does not say its version; this release is tested with {VERSION}"


@pytest.mark.parametrize(("other", "relation"), [("0.9.1", "older"), ("99.0.0", "newer")])
def test_another_pgmq_than_the_tested_one_is_announced(empty_database: str, other: str, relation: str) -> None:
    migrate(empty_database, print)
    do(empty_database, f"COMMENT ON SCHEMA pgmq IS 'By intelliflow migrate, pgmq {other}'")
    said: list[str] = []
    migrate(empty_database, said.append)
    assert said == [f"this database has pgmq {other}, {relation} than {VERSION}, with which this release is tested"]


def test_a_schema_of_that_name_that_is_somebody_else_s_is_left_alone(empty_database: str) -> None:
    do(empty_database, "CREATE SCHEMA cron CREATE TABLE cron.mine (id integer)")
    with pytest.raises(MigrationError, match="neither pg_cron's nor made by"):
        migrate(empty_database, print)
    assert asked(empty_database, "SELECT relname::text FROM pg_class WHERE relnamespace = 'cron'::regnamespace") == [
        ("mine",)
    ]


def test_an_empty_schema_of_that_name_is_filled(empty_database: str) -> None:
    do(empty_database, "CREATE SCHEMA cron; CREATE SCHEMA pgmq; CREATE SCHEMA util")
    assert migrate(empty_database, print)
    assert len(asked(empty_database, JOBS)) == 1
