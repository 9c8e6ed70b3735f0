from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from embedded_stack.postgres import create_database, drop_database
from worker_ops import migrations
from worker_ops.migrations import ADVISORY_LOCK, MigrationError, migrate, shipped_migrations
from worker_runtime.postgres import Database

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = [migration.id for migration in shipped_migrations()]
COMMIT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id)
VALUES (gen_random_uuid(), 'a.b', 'a', '1', 't')
"""
SHAPE = """
SELECT table_name, column_name, data_type, ordinal_position
  FROM information_schema.columns
 WHERE table_schema = 'public'
 ORDER BY 1, 4
"""


@pytest.fixture
def empty_database(migrated_template: tuple[str, str]) -> Iterator[str]:
    server_url, _ = migrated_template
    name = f"empty_{uuid4().hex}"
    create_database(server_url, name)
    yield server_url.rsplit("/", 1)[0] + f"/{name}"
    drop_database(server_url, name)


def say_nothing(_: str) -> None: ...


def shape(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(SHAPE).fetchall()


def test_an_empty_database_becomes_current_and_stays_so(empty_database: str) -> None:
    said: list[str] = []
    assert migrate(empty_database, said.append) == ALL
    assert [line for line in said if line.startswith("applying")] == [f"applying {name}" for name in ALL]
    before = shape(empty_database)
    assert migrate(empty_database, say_nothing) == []
    assert shape(empty_database) == before


@pytest.mark.timeout(60)
def test_writers_go_on_while_a_migration_waits_for_one_of_them(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "shipped_migrations", lambda: shipped_migrations()[:2])
        migrate(empty_database, say_nothing)
    said: list[str] = []
    with psycopg.connect(empty_database) as idle, ThreadPoolExecutor(1) as threads:
        idle.execute(COMMIT)
        migrating = threads.submit(migrate, empty_database, said.append)
        with psycopg.connect(empty_database, autocommit=True) as writer:
            while not any("waits for a moment" in line for line in said):
                writer.execute("SET statement_timeout = '5s'")
                writer.execute(COMMIT)
        assert not migrating.done()
        idle.rollback()
        assert migrating.result() == ALL[2:]


@pytest.mark.parametrize("older", range(1, len(ALL)))
def test_any_older_version_becomes_current(
    empty_database: str, migrated_template: tuple[str, str], monkeypatch: pytest.MonkeyPatch, older: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "shipped_migrations", lambda: shipped_migrations()[:older])
        assert migrate(empty_database, say_nothing) == ALL[:older]
    assert migrate(empty_database, say_nothing) == ALL[older:]
    server_url, template = migrated_template
    assert shape(empty_database) == shape(server_url.rsplit("/", 1)[0] + f"/{template}")


def test_four_at_once_apply_everything_once(empty_database: str) -> None:
    start = threading.Barrier(4)

    def one(_: int) -> list[str]:
        start.wait()
        return migrate(empty_database, say_nothing)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(one, range(4))) == [[], [], [], ALL]


def test_the_second_waits_and_says_so(empty_database: str) -> None:
    waiting = threading.Event()
    with psycopg.connect(empty_database, autocommit=True) as first, ThreadPoolExecutor(1) as pool:
        first.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_LOCK])
        second = pool.submit(migrate, empty_database, lambda text: waiting.set() if "waiting" in text else None)
        assert waiting.wait(10)
        assert not second.done()
        first.execute("SELECT pg_advisory_unlock(%s)", [ADVISORY_LOCK])
        assert second.result(10) == ALL


def test_a_run_killed_half_way_leaves_nothing_in_the_way(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = migrations._Backend.apply_one

    def lose_the_connection(backend: migrations._Backend, migration: object, **options: bool) -> None:
        if migration.id == ALL[1]:  # type: ignore[attr-defined]
            with psycopg.connect(empty_database, autocommit=True) as killer:
                killer.execute("SELECT pg_terminate_backend(%s)", [backend.connection.info.backend_pid])
        real(backend, migration, **options)

    with monkeypatch.context() as patch:
        patch.setattr(migrations._Backend, "apply_one", lose_the_connection)
        with pytest.raises(MigrationError, match=ALL[1]):
            migrate(empty_database, say_nothing)
    assert migrate(empty_database, say_nothing) == ALL[1:]


def test_a_failing_migration_is_rolled_back_whole_and_named(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE domain_event_outbox_archive (mine int)")
    with pytest.raises(MigrationError, match=f"migration {ALL[1]} failed and was rolled back"):
        migrate(empty_database, say_nothing)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("DROP TABLE domain_event_outbox_archive")
    assert migrate(empty_database, say_nothing) == ALL[1:]


async def test_the_worker_sees_whether_the_schema_is_current(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Database(empty_database)
    assert not await store.schema_is_current()
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "shipped_migrations", lambda: shipped_migrations()[:1])
        migrate(empty_database, say_nothing)
    assert not await store.schema_is_current()
    migrate(empty_database, say_nothing)
    assert await store.schema_is_current()
    await store.close()
