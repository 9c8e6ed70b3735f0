"""Whatever an application is written with: what it commits is published, in its order, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from engine_harness import until
from events_worker.event import EventJob
from outbox_harness import INSERT, Bench, Instance, opened_bench
from producers.in_process import asyncpg_sql, django_orm, psycopg_sql, sqlalchemy_core, sqlalchemy_orm
from producers.locks import by_version, sqlalchemy_version
from producers.mapped import TABLE, apply, mapping, own_table, own_table_by_view
from producers.node import node_pg
from producers.producer import LEADS, Conflict, Move, RolledBack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractContextManager

    from producers.producer import Producer

IDS = ("l-1", "l-2", "l-3")
WRITERS, MOVES = 3, 4


@dataclass(frozen=True)
class Application:
    """A producer, and what its database needs beside the outbox."""

    producer: Producer
    scripts: Sequence[bytes | str] = ()


APPLICATIONS = {
    "SQL by psycopg": Application(psycopg_sql),
    "SQL by asyncpg": Application(asyncpg_sql),
    "SQL by psycopg, optimistic": Application(by_version),
    "SQLAlchemy Core": Application(sqlalchemy_core),
    "SQLAlchemy ORM": Application(sqlalchemy_orm),
    "SQLAlchemy ORM, optimistic": Application(sqlalchemy_version),
    "Django": Application(django_orm),
    "a view for Prisma": Application(own_table_by_view, [mapping("domain-events-view.sql")]),
    "Prisma's own table": Application(own_table, [TABLE, mapping("domain-events-trigger.sql")]),
    "Node's pg": Application(node_pg),
}


@dataclass(frozen=True)
class Business:
    """A database with three leads, and a way to open transactions on it."""

    bench: Bench
    producer: Producer

    def transaction(self) -> AbstractContextManager[Move]:
        return self.producer(self.bench.database_url)

    async def leads(self) -> dict[str, tuple[str, int]]:
        async with self.bench.connected() as database:
            rows = await database.fetch("SELECT id, status, version FROM leads")
        return {row["id"]: (row["status"], row["version"]) for row in rows}


@pytest.fixture
async def bench(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    async with opened_bench(redis_url, database_url) as made:
        yield made


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.needs("node", "npm")] if name.startswith("Node") else [])
        for name in APPLICATIONS
    ]
)
def business(request: pytest.FixtureRequest, bench: Bench) -> Business:
    application = APPLICATIONS[request.param]
    leads = ", ".join(f"('{lead}', 't-1', 'new', 0)" for lead in IDS)
    apply(bench.database_url, LEADS, f"INSERT INTO leads VALUES {leads}", *application.scripts)
    return Business(bench, application.producer)


async def test_what_is_committed_is_published_in_its_order_and_nothing_else(business: Business) -> None:
    await asyncio.to_thread(commit_and_roll_back, business)
    async with business.bench.relaying() as relaying:
        events = await handled(business.bench, relaying, 12)
    assert [event.aggregate_id for event in events[:3]] == list(IDS)
    for lead in IDS:
        mine = [event.payload for event in events if event.aggregate_id == lead]
        assert [payload["status"] for payload in mine] == ["s0", "s1", "s2", "s3"]
        assert [payload["version"] for payload in mine] == [1, 2, 3, 4]
    assert {(event.event_type, event.aggregate_type, event.tenant_id) for event in events} == {
        ("lead.status_changed", "Lead", "t-1")
    }
    assert await business.bench.count("true") == 12
    assert await business.leads() == dict.fromkeys(IDS, ("s3", 4))


def commit_and_roll_back(business: Business) -> None:
    for number in range(4):
        with business.transaction() as move:
            for lead in IDS:
                move(lead, f"s{number}")
        with contextlib.suppress(RolledBack), business.transaction() as move:
            move("l-2", "never")
            raise RolledBack


async def test_writers_of_one_aggregate_at_once_are_published_in_the_order_of_their_commits(business: Business) -> None:
    async with business.bench.relaying() as relaying, asyncio.TaskGroup() as at_once:
        for writer in range(WRITERS):
            at_once.create_task(asyncio.to_thread(compete, business, str(writer)))
        handling = at_once.create_task(handled(business.bench, relaying, WRITERS * MOVES))
    events = handling.result()
    assert [event.payload["version"] for event in events] == list(range(1, WRITERS * MOVES + 1))
    assert (await business.leads())["l-1"] == (events[-1].payload["status"], WRITERS * MOVES)


def compete(business: Business, writer: str) -> None:
    for number in range(MOVES):
        while True:
            with contextlib.suppress(Conflict):
                with business.transaction() as move:
                    move("l-1", f"{writer}.{number}")
                break


async def test_writers_that_nothing_serialises_are_published_each_once_and_in_no_order(bench: Bench) -> None:
    async with bench.connected() as slow, bench.connected() as quick, bench.relaying() as relaying:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(INSERT, "00000000-0000-4000-8000-000000000001", "lead.updated", "l-1", "{}", "{}")
        await quick.execute(INSERT, "00000000-0000-4000-8000-000000000002", "lead.updated", "l-1", "{}", "{}")
        (first,) = await handled(bench, relaying, 1)
        await transaction.commit()
        first, second = await handled(bench, relaying, 2)
    assert (first.event_id[-1], second.event_id[-1]) == ("2", "1")
    # Who inserted first can still be told.
    assert (first.sequence or 0) > (second.sequence or 0)


async def handled(bench: Bench, relaying: Instance, count: int) -> list[EventJob]:
    """Handle events as they are published, and return them in that order."""
    ids: list[str] = []

    async def all_of_them() -> bool:
        for event_id in (await bench.waiting())[len(ids) :]:
            ids.append(event_id)
            await relaying.turns.finish(event_id)
        return len(ids) >= count

    await until(all_of_them, within=30)
    assert len(set(ids)) == len(ids) == count
    return [EventJob.model_validate_json((await bench.job(event_id))["data"]) for event_id in ids]
