"""`intelliflow jobs migrate`: from nothing, from Procrastinate's own schema, again, twice at once, and from too old."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from conftest import with_database
from embedded_stack.postgres import create_database, drop_database
from jobs_harness import desk, engine
from worker_ops.exit_codes import ExitCode
from worker_ops.jobs.schema import OLDEST_FOUND

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = "jobs_worker.app.job_queue"
MIGRATIONS = files("procrastinate") / "sql" / "migrations"
COLUMNS = """
SELECT table_name || '.' || column_name FROM information_schema.columns
 WHERE table_schema IN ('public', 'jobs_ops') ORDER BY 1
"""
FUNCTIONS = """
SELECT p.oid::regprocedure::text || md5(regexp_replace(prosrc, '\\s+', ' ', 'g'))
  FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace WHERE nspname IN ('public', 'jobs_ops') ORDER BY 1
"""
INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname IN ('public', 'jobs_ops') ORDER BY 1"
TRIGGERS = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"


@pytest.fixture
def empty_url(migrated_jobs_template: tuple[str, str]) -> Iterator[str]:
    server_url, _ = migrated_jobs_template
    name = f"test_{uuid4().hex}"
    create_database(server_url, name)
    yield with_database(server_url, name)
    drop_database(server_url, name)


def migrate(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker_ops", "jobs", "migrate"],
        env={"JOB_QUEUE_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
    )


def procrastinate(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "procrastinate", f"--app={APP}", *arguments],
        env={"JOB_QUEUE_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
    )


def everything(url: str) -> list[list[Any]]:
    with psycopg.connect(url) as database:
        return [
            [row[0] for row in database.execute(statement.encode()).fetchall()]
            for statement in (COLUMNS, FUNCTIONS, INDEXES, TRIGGERS)
        ]


def apply_until(url: str, newest: str) -> None:
    """Apply Procrastinate's own migrations, as its documentation says, up to one of them."""
    with psycopg.connect(url, autocommit=True) as database:
        for file in sorted(MIGRATIONS.iterdir(), key=lambda file: file.name):
            if file.name.endswith(".sql") and file.name <= newest:
                database.execute(sql.SQL(file.read_text()))


def test_an_empty_database_gets_everything_and_a_second_run_nothing(empty_url: str, jobs_database_url: str) -> None:
    first = migrate(empty_url)
    assert (first.returncode, first.stdout) == (0, "")
    assert "applying procrastinate" in first.stderr
    assert everything(empty_url) == everything(jobs_database_url)
    again = migrate(empty_url)
    assert (again.returncode, again.stderr) == (0, "the schema of the jobs is current (0 migrations applied now)\n")


def test_two_at_once_and_one_does_it(empty_url: str, jobs_database_url: str) -> None:
    command = [sys.executable, "-m", "worker_ops", "jobs", "migrate"]
    both = [
        subprocess.Popen(command, env={"JOB_QUEUE_DATABASE_URL": empty_url}, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("applying procrastinate" in one for one in said) == 1
    assert sum("(0 migrations applied now)" in one for one in said) == 1
    assert everything(empty_url) == everything(jobs_database_url)


async def test_a_schema_of_procrastinate_s_own_command_is_kept_with_its_jobs(empty_url: str) -> None:
    plain = procrastinate(empty_url, "schema", "--apply")
    assert plain.returncode == 0, plain.stderr
    with psycopg.connect(empty_url, autocommit=True) as database:
        database.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, args) SELECT 'mail', 'old', '{}'"
            " FROM generate_series(1, 3)"
        )
        database.execute("UPDATE procrastinate_jobs SET status = 'doing' WHERE id > 1")
        database.execute("SELECT procrastinate_finish_job_v1(2, 'succeeded', false)")
        database.execute("UPDATE procrastinate_events SET at = at - interval '40 days'")
    done = migrate(empty_url)
    assert done.returncode == 0, done.stderr
    assert "has Procrastinate's schema already" in done.stderr
    assert migrate(empty_url).stderr == "the schema of the jobs is current (0 migrations applied now)\n"
    with psycopg.connect(empty_url, autocommit=True) as database:
        old = "now() - interval '39 days'"
        ages = database.execute(
            f"SELECT created_at < {old}, started_at < {old}, finished_at < {old} FROM procrastinate_jobs"
            " ORDER BY id".encode()
        ).fetchall()
    # As the events tell: one that waits, one that has succeeded, one at work.
    assert ages == [(True, None, None), (True, True, True), (True, True, None)]

    async with desk(empty_url) as at:
        ran: list[int] = []
        at.app.task(name="old")(lambda: ran.append(1))
        async with engine(at, silence_seconds=60.0) as one:
            await at.until(1, "succeeded")
            # The worker that began the other left no trace of itself.
            await one.upkeep.turn()
            await at.until(3, "succeeded")
        assert ran == [1, 1]


def test_the_schema_is_what_procrastinate_s_migrations_make_of_any_version(
    empty_url: str, jobs_database_url: str
) -> None:
    apply_until(empty_url, OLDEST_FOUND)
    assert migrate(empty_url).returncode == 0
    fresh = everything(jobs_database_url)
    # Columns stand in another order there, and names differ; what they are called by is the same.
    assert set(fresh[0]) == set(everything(empty_url)[0])
    assert migrate(empty_url).stderr == "the schema of the jobs is current (0 migrations applied now)\n"


def test_a_schema_that_is_too_old_is_refused_with_a_remedy_that_helps(empty_url: str) -> None:
    apply_until(empty_url, "03.02.99")
    before = everything(empty_url)
    refused = migrate(empty_url)
    assert refused.returncode == ExitCode.FAILED
    assert OLDEST_FOUND in refused.stderr
    assert everything(empty_url)[1:] == before[1:]
    with psycopg.connect(empty_url, autocommit=True) as database:
        for name in sorted(file.name for file in MIGRATIONS.iterdir()):
            if "03.02.99" < name <= OLDEST_FOUND:
                database.execute(sql.SQL((MIGRATIONS / name).read_text()))
    assert migrate(empty_url).returncode == 0


def test_a_run_that_was_killed_is_finished_by_the_next(empty_url: str, jobs_database_url: str) -> None:
    assert procrastinate(empty_url, "schema", "--apply").returncode == 0
    with psycopg.connect(empty_url) as holder:
        # It waits for this table for as long as it takes to kill it.
        holder.execute("LOCK TABLE procrastinate_jobs IN ACCESS EXCLUSIVE MODE")
        process = subprocess.Popen(
            [sys.executable, "-m", "worker_ops", "jobs", "migrate"],
            env={"JOB_QUEUE_DATABASE_URL": empty_url},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr
        for line in process.stderr:
            if "waits for a moment" in line:
                break
        process.kill()
        process.communicate()
    assert migrate(empty_url).returncode == 0
    assert everything(empty_url)[0] == everything(jobs_database_url)[0]


def test_migrate_brings_both_databases_when_both_are_named(empty_url: str, database_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker_ops", "migrate"],
        env={"JOB_QUEUE_DATABASE_URL": empty_url, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "the schema is current (0 migrations applied now)" in done.stderr
    assert "the schema of the jobs is current (3 migrations applied now)" in done.stderr


async def test_procrastinate_s_own_functions_are_as_it_made_them(empty_url: str, jobs_database_url: str) -> None:
    assert (await asyncio.to_thread(procrastinate, empty_url, "schema", "--apply")).returncode == 0
    ours = set(everything(jobs_database_url)[1])
    assert set(everything(empty_url)[1]) <= ours
