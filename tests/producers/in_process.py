"""Drivers and ORMs of Python."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import contextmanager
from functools import cache, partial
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import MetaData, NullPool, Table, create_engine, insert, select, update
from sqlalchemy.orm import Session

from producers.producer import example, moved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from producers.producer import Move

# The update locks the row, and comes first.
CHANGE = "UPDATE leads SET status = {}, version = version + 1 WHERE id = {} RETURNING tenant_id, version"
EVENT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
VALUES ({}, 'lead.status_changed', 'Lead', {}, {}, {}, {})
"""


CONFIGURING = Lock()


@contextmanager
def psycopg_sql(url: str) -> Iterator[Move]:
    with psycopg.connect(url) as connection:
        yield partial(_move_by_psycopg, connection)


def _move_by_psycopg(connection: psycopg.Connection[Any], lead_id: str, status: str) -> None:
    row = connection.execute(CHANGE.format("%s", "%s").encode(), (status, lead_id)).fetchone()
    assert row is not None
    payload = moved(lead_id, row[0], status, row[1])
    values = (uuid.uuid4(), lead_id, row[0], Jsonb(payload), Jsonb({}))
    connection.execute(EVENT.format(*["%s"] * 5).encode(), values)


@contextmanager
def asyncpg_sql(url: str) -> Iterator[Move]:
    with asyncio.Runner() as runner:
        connection = runner.run(_asyncpg_connection(url))
        transaction = connection.transaction()
        runner.run(transaction.start())
        try:
            yield lambda lead_id, status: runner.run(_move_by_asyncpg(connection, lead_id, status))
        except BaseException:
            runner.run(transaction.rollback())
            raise
        else:
            runner.run(transaction.commit())
        finally:
            runner.run(connection.close())


async def _asyncpg_connection(url: str) -> Any:
    return await asyncpg.connect(url)


async def _move_by_asyncpg(connection: Any, lead_id: str, status: str) -> None:
    tenant_id, version = await connection.fetchrow(CHANGE.format("$1", "$2"), status, lead_id)
    payload = json.dumps(moved(lead_id, tenant_id, status, version))
    await connection.execute(
        EVENT.format("$1", "$2", "$3", "$4", "$5"), uuid.uuid4(), lead_id, tenant_id, payload, "{}"
    )


@contextmanager
def sqlalchemy_orm(url: str) -> Iterator[Move]:
    with Session(engine(url)) as session, session.begin():
        yield partial(example("produce_sqlalchemy").move_lead, session)


@contextmanager
def sqlalchemy_core(url: str) -> Iterator[Move]:
    """The outbox as SQLAlchemy finds it in the database, with all its columns."""
    with engine(url).begin() as connection:
        names = MetaData()
        leads, outbox = (Table(name, names, autoload_with=connection) for name in ("leads", "domain_event_outbox"))
        yield partial(_move_by_core, connection, leads, outbox)


def _move_by_core(connection: Connection, leads: Table, outbox: Table, lead_id: str, status: str) -> None:
    lead = connection.execute(select(leads).where(leads.c.id == lead_id).with_for_update()).one()
    version = lead.version + 1
    connection.execute(update(leads).where(leads.c.id == lead_id).values(status=status, version=version))
    connection.execute(
        insert(outbox).values(
            id=uuid.uuid4(),
            event_type="lead.status_changed",
            aggregate_type="Lead",
            aggregate_id=lead_id,
            tenant_id=lead.tenant_id,
            payload=moved(lead_id, lead.tenant_id, status, version),
        )
    )


def engine(url: str) -> Engine:
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)


@contextmanager
def django_orm(url: str) -> Iterator[Move]:
    with CONFIGURING:
        models, transaction, connections = django()
    parts = urlsplit(url)
    connections.settings["default"] |= {
        "HOST": parts.hostname,
        "PORT": parts.port,
        "USER": parts.username,
        "PASSWORD": parts.password,
        "NAME": parts.path.removeprefix("/"),
    }
    try:
        with transaction.atomic():
            yield models.move_lead
    finally:
        connections["default"].close()
        del connections["default"]


@cache
def django() -> tuple[Any, Any, Any]:
    """Make this process a Django application, as far as models need one."""
    import django  # noqa: PLC0415  nothing of it may be imported before it is configured
    from django.conf import settings  # noqa: PLC0415

    database = {"ENGINE": "django.db.backends.postgresql"}
    settings.configure(DATABASES={"default": database}, USE_TZ=True, LOGGING_CONFIG=None)
    django.setup()
    from django.db import connections, transaction  # noqa: PLC0415

    return example("produce_django"), transaction, connections
