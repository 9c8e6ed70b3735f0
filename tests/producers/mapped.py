"""What Prisma writes, statement by statement, into a table or view with its own names."""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from producers.in_process import CHANGE
from producers.producer import moved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from producers.producer import Move

MAPPINGS = Path(__file__).parents[2] / "infra" / "postgres" / "mappings"
# As `prisma migrate` makes them of a model with `id String @id @default(cuid())` and a status.
TABLE = """
CREATE TYPE "EventStatus" AS ENUM ('PENDING', 'PROCESSED', 'DEAD_LETTER');
CREATE TABLE domain_events (
    "id" TEXT NOT NULL,
    "eventType" TEXT NOT NULL,
    "aggregateType" TEXT NOT NULL,
    "aggregateId" TEXT NOT NULL,
    "payload" JSONB NOT NULL,
    "metadata" JSONB,
    "occurredAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "processedAt" TIMESTAMP(3),
    "status" "EventStatus" NOT NULL DEFAULT 'PENDING',
    "retryCount" INTEGER NOT NULL DEFAULT 0,
    "tenantId" TEXT NOT NULL,
    CONSTRAINT "domain_events_pkey" PRIMARY KEY ("id")
);
"""
INTO_TABLE = """
INSERT INTO "public"."domain_events" ("id","eventType","aggregateType","aggregateId","payload","occurredAt","status",
"retryCount","tenantId") VALUES (%s,%s,%s,%s,%s,%s,CAST(%s::text AS "public"."EventStatus"),%s,%s)
RETURNING "public"."domain_events"."id", "public"."domain_events"."eventType", "public"."domain_events"."aggregateType",
"public"."domain_events"."aggregateId", "public"."domain_events"."payload", "public"."domain_events"."metadata",
"public"."domain_events"."occurredAt", "public"."domain_events"."processedAt", "public"."domain_events"."status"::text,
"public"."domain_events"."retryCount", "public"."domain_events"."tenantId"
"""
INTO_VIEW = """
INSERT INTO "public"."domain_events" ("id","eventType","aggregateType","aggregateId","tenantId","payload","occurredAt")
VALUES (%s,%s,%s,%s,%s,%s,%s)
RETURNING "public"."domain_events"."id", "public"."domain_events"."eventType", "public"."domain_events"."aggregateType",
"public"."domain_events"."aggregateId", "public"."domain_events"."tenantId", "public"."domain_events"."payload",
"public"."domain_events"."metadata", "public"."domain_events"."occurredAt"
"""


def mapping(name: str) -> bytes:
    """Return a file as it is shipped."""
    return (MAPPINGS / name).read_bytes()


def apply(url: str, *scripts: bytes | str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for script in scripts:
            connection.execute(script if isinstance(script, bytes) else script.encode())


def cuid() -> str:
    return f"c{uuid.uuid4().hex[:24]}"


def row(event_id: str, lead_id: str, payload: dict[str, Any], status: str = "PENDING") -> tuple[Any, ...]:
    """What Prisma sends for an event: its own clock, and every default that its schema knows."""
    now = datetime.now(UTC).replace(tzinfo=None)
    return (event_id, "lead.status_changed", "Lead", lead_id, json.dumps(payload), now, status, 0, "t-1")


@contextmanager
def own_table(url: str) -> Iterator[Move]:
    with psycopg.connect(url) as connection:
        yield partial(_move, connection, into_table)


@contextmanager
def own_table_by_view(url: str) -> Iterator[Move]:
    with psycopg.connect(url) as connection:
        yield partial(_move, connection, into_view)


def _move(connection: psycopg.Connection[Any], write: Any, lead_id: str, status: str) -> None:
    changed = connection.execute(CHANGE.format("%s", "%s").encode(), (status, lead_id)).fetchone()
    assert changed is not None
    write(connection, lead_id, moved(lead_id, changed[0], status, changed[1]))


def into_table(connection: psycopg.Connection[Any], lead_id: str, payload: dict[str, Any]) -> None:
    connection.execute(INTO_TABLE, row(cuid(), lead_id, payload))


def into_view(connection: psycopg.Connection[Any], lead_id: str, payload: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    values = (str(uuid.uuid4()), "lead.status_changed", "Lead", lead_id, "t-1", json.dumps(payload), now)
    connection.execute(INTO_VIEW, values)
