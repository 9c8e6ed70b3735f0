"""Rows and roles that nobody foresaw: the relay goes on, and nobody gains rights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from events_worker.outbox import OutboxEvent, Unpublishable, publication, sort_out
from events_worker.store import OutboxStore, PartitionStore
from worker_runtime.postgres import Database

if TYPE_CHECKING:
    from collections.abc import Iterator

INSERT = (
    "INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)"
    " VALUES (%s, 'lead.created', 'Lead', gen_random_uuid()::text, 't1', '{}', %s)"
)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


async def test_a_number_only_jsonb_can_hold_is_a_dead_letter_and_the_next_row_is_published(
    database_url: str, connection: psycopg.Connection
) -> None:
    poison, good = uuid4(), uuid4()
    connection.execute(INSERT, [poison, '{"n": 1e5000}'])
    connection.execute(INSERT, [good, "{}"])
    async with Database(database_url) as database:
        await PartitionStore(database, "here", 15.0).record(1)
        share = await PartitionStore(database, "here", 15.0).balance(())
        claimed = await OutboxStore(database, 1, 1_000_000).claim(10, share.tokens)
    batch = sort_out(claimed, 1_000_000)
    assert [job.job_id for job in batch.jobs] == [str(good)]
    assert [verdict.event_id for verdict in batch.unpublishable] == [str(poison)]


def test_the_archive_trigger_cannot_be_borrowed(connection: psycopg.Connection) -> None:
    role = f"guest_{uuid4().hex}"
    connection.execute(f"CREATE ROLE {role}")
    try:
        connection.execute(f"SET ROLE {role}")
        connection.execute("CREATE TEMP TABLE mine (id uuid)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "CREATE TRIGGER borrowed AFTER DELETE ON mine REFERENCING OLD TABLE AS gone"
                " FOR EACH STATEMENT EXECUTE FUNCTION public.archive_deleted_outbox_events()"
            )
    finally:
        connection.execute("RESET ROLE")
        connection.execute("DROP TABLE IF EXISTS mine")
        connection.execute(f"DROP ROLE {role}")


def test_whatever_one_row_breaks_is_told_of_that_row() -> None:
    event = OutboxEvent(str(uuid4()), "lead.created", "Lead", "l", "t", "{}", 2, json.dumps({"a": 1}), None, 1)
    odd = OutboxEvent(str(uuid4()), "lead.created", "Lead", "l", "t", "{}", 2, "not json", None, 2)
    batch = sort_out([odd, event], 1_000)
    assert [verdict.event_id for verdict in batch.unpublishable] == [odd.id]
    assert len(batch.jobs) == 1
    assert isinstance(publication(odd, 1_000), Unpublishable)
