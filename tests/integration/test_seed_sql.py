"""The runbook's SQL, as it is written there."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from command_line import Operator, operator

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["operator"]

ALIVE = "SELECT 1"
COUNT_PENDING = "SELECT COUNT(*) FROM domain_event_outbox WHERE processed_at IS NULL"
ARCHIVE = """
INSERT INTO domain_event_outbox_archive
SELECT * FROM domain_event_outbox
WHERE processed_at < NOW() - INTERVAL '7 days';
"""
DELETE = """
DELETE FROM domain_event_outbox
WHERE processed_at < NOW() - INTERVAL '7 days';
"""
VACUUM = "VACUUM ANALYZE domain_event_outbox;"

INSERT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
VALUES (%s, 'lead.created', 'lead', 'l-1', 't-1', '{"leadId": "l-1"}', '{}')
"""


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def insert(database: psycopg.Connection[Any], *, processed_days_ago: int | None = None) -> str:
    event_id = str(uuid4())
    database.execute(INSERT, [event_id])
    if processed_days_ago is not None:
        database.execute(
            "UPDATE domain_event_outbox SET status = 'processed', processed_at = NOW() - make_interval(days => %s)"
            " WHERE id = %s",
            [processed_days_ago, event_id],
        )
    return event_id


def ids(database: psycopg.Connection[Any], table: str) -> list[str]:
    return sorted(str(row[0]) for row in database.execute(f"SELECT id FROM {table}").fetchall())


@pytest.mark.needs("psql")
def test_the_runbook_s_blocks_run_as_they_are_typed(database: psycopg.Connection[Any], database_url: str) -> None:
    def psql(*arguments: str, block: str = "") -> str:
        command = ["psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", *arguments, database_url]
        return subprocess.run(command, input=block, capture_output=True, text=True, check=True).stdout.strip()

    insert(database)
    old = insert(database, processed_days_ago=8)
    assert psql("-c", ALIVE) == "1"
    assert psql("-c", COUNT_PENDING) == "1"
    weekly = f"-- Archive processed outbox events (run weekly){ARCHIVE}{DELETE}\n-- Vacuum to reclaim space\n{VACUUM}\n"
    assert psql("-f", "-", block=weekly) == ""
    assert psql("-f", "-", block=weekly) == ""
    assert ids(database, "domain_event_outbox_archive") == [old]


def test_a_dead_letter_that_the_runbook_archives_can_still_be_retried(operator: Operator) -> None:
    event_id = operator.dead(aggregate="a")
    operator.under_way(event_id, dead_reason="GONE: it is gone", finished="{routing}")
    operator.database.execute("UPDATE domain_event_outbox SET processed_at = now() - interval '8 days'")
    for statement in (ARCHIVE, DELETE, VACUUM):
        operator.database.execute(statement)
    assert ids(operator.database, "domain_event_outbox") == []
    (shown,) = operator.json("outbox dead")
    assert (shown["archived"], shown["blocks"]) == (True, True)
    assert operator.json(f"outbox retry {event_id} --apply")[0]["outcome"] == "retried"
    assert operator.value(COUNT_PENDING) == 1
    assert operator.json(f"outbox show {event_id}")["handlersDone"] == ["routing"]
    assert ids(operator.database, "domain_event_outbox_archive") == []


def test_seven_columns_are_enough_for_a_writer(database: psycopg.Connection[Any]) -> None:
    insert(database)
    row = database.execute(
        "SELECT status, retry_count, next_retry_at, last_error, created_at <= now(), processed_at, position"
        " FROM domain_event_outbox"
    ).fetchone()
    assert row == ("pending", 0, None, None, True, None, 1)


def test_the_pending_events_are_counted(database: psycopg.Connection[Any]) -> None:
    insert(database)
    insert(database, processed_days_ago=0)
    assert database.execute(COUNT_PENDING).fetchone() == (1,)


def test_the_weekly_archive_moves_each_old_event_once(database: psycopg.Connection[Any]) -> None:
    pending, fresh, old, older = (insert(database, processed_days_ago=days) for days in (None, 6, 8, 30))
    assert database.execute(ARCHIVE).rowcount == 2
    assert database.execute(DELETE).rowcount == 2
    database.execute(VACUUM)
    assert ids(database, "domain_event_outbox") == sorted([pending, fresh])
    assert ids(database, "domain_event_outbox_archive") == sorted([old, older])
    database.execute(ARCHIVE)
    database.execute(DELETE)
    assert len(ids(database, "domain_event_outbox_archive")) == 2


def test_what_is_deleted_without_being_archived_is_archived(database: psycopg.Connection[Any]) -> None:
    kept, deleted = insert(database), insert(database)
    before = database.execute("SELECT * FROM domain_event_outbox WHERE id = %s", [deleted]).fetchone()
    database.execute("DELETE FROM domain_event_outbox WHERE id = %s", [deleted])
    assert ids(database, "domain_event_outbox") == [kept]
    assert database.execute("SELECT * FROM domain_event_outbox_archive").fetchall() == [before]


def test_a_role_that_may_only_delete_archives_too(database: psycopg.Connection[Any]) -> None:
    role = f"janitor_{uuid4().hex}"
    insert(database)
    database.execute(f"CREATE ROLE {role}")
    try:
        database.execute(f"GRANT SELECT, DELETE ON domain_event_outbox TO {role}")
        database.execute(f"SET ROLE {role}")
        database.execute("DELETE FROM domain_event_outbox")
        database.execute("RESET ROLE")
        assert len(ids(database, "domain_event_outbox_archive")) == 1
    finally:
        database.execute("RESET ROLE")
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")


def test_archive_and_outbox_have_the_same_columns_in_the_same_order(database: psycopg.Connection[Any]) -> None:
    def columns(table: str) -> list[tuple[str, str]]:
        return database.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s"
            " ORDER BY ordinal_position",
            [table],
        ).fetchall()

    assert columns("domain_event_outbox") == columns("domain_event_outbox_archive")


def test_the_pending_events_are_found_by_their_index(database: psycopg.Connection[Any]) -> None:
    database.execute(
        "INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, processed_at)"
        " SELECT gen_random_uuid(), 'a.b', 'a', n::text, 't', CASE WHEN n % 100 > 0 THEN now() END"
        " FROM generate_series(1, 20000) AS n"
    )
    database.execute(VACUUM)
    plan = "\n".join(
        row[0]
        for row in database.execute(
            "EXPLAIN SELECT id FROM domain_event_outbox WHERE processed_at IS NULL ORDER BY position LIMIT 100"
        ).fetchall()
    )
    assert "domain_event_outbox_pending" in plan
    assert "Sort" not in plan
