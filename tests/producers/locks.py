"""Writers that lock nothing, and find out by the version that somebody was faster."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.orm.exc import StaleDataError

from producers.in_process import EVENT, engine
from producers.producer import Conflict, example, moved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from producers.producer import Move


class Base(DeclarativeBase): ...


class VersionedLead(Base):
    __tablename__ = "leads"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    status: Mapped[str]
    version: Mapped[int] = mapped_column()

    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012  SQLAlchemy's way


@contextmanager
def by_version(url: str) -> Iterator[Move]:
    with psycopg.connect(url) as connection:
        yield partial(_move_by_version, connection)


def _move_by_version(connection: psycopg.Connection[Any], lead_id: str, status: str) -> None:
    row = connection.execute("SELECT tenant_id, version FROM leads WHERE id = %s", (lead_id,)).fetchone()
    assert row is not None
    tenant_id, version = row
    change = "UPDATE leads SET status = %s, version = version + 1 WHERE id = %s AND version = %s"
    if connection.execute(change, (status, lead_id, version)).rowcount == 0:
        raise Conflict
    payload = Jsonb(moved(lead_id, tenant_id, status, version + 1))
    connection.execute(EVENT.format(*["%s"] * 5).encode(), (uuid.uuid4(), lead_id, tenant_id, payload, Jsonb({})))


@contextmanager
def sqlalchemy_version(url: str) -> Iterator[Move]:
    """The session writes the event before the lead, or after it: either way the loser takes its event with it."""
    with Session(engine(url)) as session:
        try:
            with session.begin():
                yield partial(_move_by_session, session)
        except StaleDataError as error:
            raise Conflict from error


def _move_by_session(session: Session, lead_id: str, status: str) -> None:
    lead = session.get_one(VersionedLead, lead_id)
    payload = moved(lead_id, lead.tenant_id, status, lead.version + 1)
    event = example("produce_sqlalchemy").OutboxEvent(
        event_type="lead.status_changed",
        aggregate_type="Lead",
        aggregate_id=lead_id,
        tenant_id=lead.tenant_id,
        payload=payload,
    )
    session.add(event)
    session.flush()
    lead.status = status
    session.flush()
