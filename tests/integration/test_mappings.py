"""An application's own table of events, brought to the outbox by the SQL that we ship for it."""

from __future__ import annotations

import re
import threading
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import errors

from producers.mapped import INTO_TABLE, INTO_VIEW, TABLE, apply, cuid, mapping, row
from producers.producer import EXAMPLES
from worker_suite import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

TRIGGER, VIEW = mapping("domain-events-trigger.sql"), mapping("domain-events-view.sql")
WRITERS_COLUMNS = {"id", "event_type", "aggregate_type", "aggregate_id", "tenant_id", "payload", "metadata"}
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def database(database_url: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def insert(connection: Connection[Any], lead: str, note: str, event_id: str = "") -> str:
    event_id = event_id or cuid()
    connection.execute(INTO_TABLE, row(event_id, lead, {"note": note}))
    return event_id


def notes(database: Connection[Any], lead: str = "l-1") -> list[str]:
    """Say what is in the outbox of a lead, in its order."""
    rows = database.execute(
        "SELECT payload ->> 'note' FROM domain_event_outbox WHERE aggregate_id = %s ORDER BY position", (lead,)
    )
    return [note for (note,) in rows]


def test_what_waits_and_what_is_being_written_comes_over_in_order(database: Connection[Any], database_url: str) -> None:
    apply(database_url, TABLE)
    insert(database, "l-1", "published long ago")
    database.execute('UPDATE domain_events SET "processedAt" = now()')
    for note in ("waits 1", "waits 2"):
        insert(database, "l-1", note)
    with psycopg.connect(database_url) as early:
        insert(early, "l-1", "begun before")
        applying = threading.Thread(target=apply, args=(database_url, TRIGGER))
        applying.start()
        wait_for(lambda: waiting(database) == 1, what="the script waiting for the writer")
        later = threading.Thread(target=commit, args=(database_url, "begun while it waits"))
        later.start()
        wait_for(lambda: waiting(database) == 2, what="a writer waiting for the script")
        assert notes(database) == []
    applying.join(20)
    later.join(20)
    insert(database, "l-1", "begun after")
    assert notes(database) == ["waits 1", "waits 2", "begun before", "begun while it waits", "begun after"]


def waiting(database: Connection[Any]) -> int:
    (count,) = database.execute(WAITING).fetchone() or (0,)
    return int(count)


def commit(database_url: str, note: str) -> None:
    with psycopg.connect(database_url) as connection:
        insert(connection, "l-1", note)


def test_applied_again_it_brings_nothing_again(database: Connection[Any], database_url: str) -> None:
    apply(database_url, TABLE)
    insert(database, "l-1", "waits")
    apply(database_url, TRIGGER)
    insert(database, "l-1", "new")
    apply(database_url, TRIGGER)
    assert notes(database) == ["waits", "new"]
    # The outbox forgets what is done; the application's table keeps it, and never learns that it is.
    database.execute("DELETE FROM domain_event_outbox")
    database.execute("DELETE FROM domain_event_outbox_archive")
    apply(database_url, TRIGGER)
    assert notes(database) == []


def test_it_gives_up_rather_than_hold_up_everybody_behind_a_long_transaction(
    database: Connection[Any], database_url: str
) -> None:
    apply(database_url, TABLE)
    with psycopg.connect(database_url) as long:
        insert(long, "l-1", "long")
        with pytest.raises(errors.LockNotAvailable):
            apply(database_url, TRIGGER.replace(b"'5s'", b"'50ms'"))
    insert(database, "l-1", "goes on")
    assert notes(database) == []
    apply(database_url, TRIGGER)
    assert notes(database) == ["long", "goes on"]


def test_an_id_stays_or_becomes_the_same_uuid_each_time(database: Connection[Any], database_url: str) -> None:
    apply(database_url, TABLE)
    proper, foreign = str(uuid.uuid4()), cuid()
    insert(database, "l-1", "waits", foreign)
    insert(database, "l-1", "waits too", proper)
    apply(database_url, TRIGGER)
    first = database.execute("SELECT id::text FROM domain_event_outbox ORDER BY position").fetchall()
    assert first[1] == (proper,)
    database.execute("DELETE FROM domain_events")
    for event_id in (foreign, proper):
        insert(database, "l-1", "the same event once more", event_id)
    assert database.execute("SELECT id::text FROM domain_event_outbox ORDER BY position").fetchall() == first
    assert notes(database) == ["waits", "waits too"]


def test_a_time_without_a_zone_is_utc_wherever_the_application_is(database: Connection[Any], database_url: str) -> None:
    apply(database_url, TABLE, TRIGGER)
    database.execute("SET TIME ZONE 'Asia/Tokyo'")
    insert(database, "l-1", "now")
    (seconds,) = database.execute(
        "SELECT EXTRACT(epoch FROM clock_timestamp() - created_at)::float8 FROM domain_event_outbox"
    ).fetchone() or (0.0,)
    assert abs(seconds) < 60


def test_one_statement_s_rows_keep_their_order_and_what_is_published_already_is_left_out(
    database: Connection[Any], database_url: str
) -> None:
    apply(database_url, TABLE, TRIGGER)
    database.execute(
        'INSERT INTO domain_events (id, "eventType", "aggregateType", "aggregateId", "tenantId", payload,'
        ' "processedAt")'
        " SELECT 'c' || number, 'lead.updated', 'Lead', 'l-1', 't-1', jsonb_build_object('note', number::text),"
        " CASE WHEN number % 10 = 0 THEN now() END FROM generate_series(1, 500) AS number ORDER BY number DESC"
    )
    assert notes(database) == [str(number) for number in range(500, 0, -1) if number % 10]
    (metadata,) = database.execute("SELECT DISTINCT metadata FROM domain_event_outbox").fetchall()
    assert metadata == ({},)


@contextmanager
def of_few_rights(database: Connection[Any], database_url: str, *grants: str) -> Iterator[Connection[Any]]:
    role = f"few_{uuid.uuid4().hex}"
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    for grant in grants:
        database.execute(f"{grant} TO {role}")
    parts = urlsplit(database_url)
    try:
        with psycopg.connect(
            parts._replace(netloc=f"{role}:secret@{parts.hostname}:{parts.port}").geturl()
        ) as connection:
            yield connection
    finally:
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")


def test_an_application_with_its_own_table_needs_the_rights_that_the_script_names(
    database: Connection[Any], database_url: str
) -> None:
    apply(database_url, TABLE, TRIGGER)
    named = re.findall(rb"GRANT \w+ ON \w+", TRIGGER)
    assert len(named) == 2
    grants = [grant.decode() for grant in named]
    with of_few_rights(database, database_url, "GRANT INSERT, SELECT ON domain_events", *grants) as application:
        insert(application, "l-1", "by few rights")
        application.commit()
        with pytest.raises(errors.InsufficientPrivilege):
            application.execute("SELECT * FROM domain_event_outbox")
    assert notes(database) == ["by few rights"]


def test_an_application_with_the_view_needs_no_right_on_the_outbox(
    database: Connection[Any], database_url: str
) -> None:
    apply(database_url, VIEW, VIEW)
    (grant,) = re.findall(rb"GRANT [\w, ]+ ON \w+", VIEW)
    values = (str(uuid.uuid4()), "lead.updated", "Lead", "l-1", "t-1", '{"note": "by a view"}', "2026-01-01T00:00:00Z")
    with of_few_rights(database, database_url, grant.decode()) as application:
        returned = application.execute(INTO_VIEW, values).fetchone()
        assert returned is not None
        assert returned[6] == {}
        application.commit()
        with pytest.raises(errors.InsufficientPrivilege):
            application.execute("INSERT INTO domain_event_outbox (id) VALUES (gen_random_uuid())")
    assert notes(database) == ["by a view"]
    assert database.execute("SELECT status, created_at::date::text FROM domain_event_outbox").fetchall() == [
        ("pending", "2026-01-01")
    ]


def test_a_view_does_not_take_the_place_of_a_table(database: Connection[Any], database_url: str) -> None:
    apply(database_url, TABLE)
    with pytest.raises(errors.WrongObjectType, match='"domain_events" is not a view'):
        apply(database_url, VIEW)


def test_another_schema_of_the_application_is_no_matter(database: Connection[Any], database_url: str) -> None:
    elsewhere = "CREATE SCHEMA app; SET search_path = app, public;"
    apply(database_url, elsewhere.encode() + TABLE.encode() + TRIGGER)
    insert_there = INTO_TABLE.replace('"public"."domain_events"', '"app"."domain_events"').replace(
        '"public"."EventStatus"', '"app"."EventStatus"'
    )
    database.execute("SET search_path = pg_catalog")
    database.execute(insert_there, row(cuid(), "l-1", {"note": "from app"}))
    database.execute("SET search_path = public")
    assert notes(database) == ["from app"]


def test_the_model_for_prisma_has_what_a_writer_gives() -> None:
    model = (EXAMPLES / "domain_event.prisma").read_text()
    fields = re.findall(r"^  (\w+) +\w+.*?(?:@map\(\"(\w+)\"\).*)?$", model, re.MULTILINE)
    assert {mapped or name for name, mapped in fields} == WRITERS_COLUMNS
    assert '@@map("domain_event_outbox")' in model
