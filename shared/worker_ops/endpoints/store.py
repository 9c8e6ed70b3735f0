"""The webhook endpoints as an operator sees and changes them. All SQL of `intelliflow endpoints`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from worker_runtime.postgres import Database

COLUMNS = """id::text, tenant_id, url, event_patterns, active, ordered, rate_per_second, permanent_statuses, headers,
       secret, CASE WHEN previous_secret_until > clock_timestamp() THEN previous_secret END AS previous_secret,
       CASE WHEN previous_secret_until > clock_timestamp() THEN previous_secret_until END AS previous_secret_until,
       created_at, failing_since, disabled_at, disabled_because"""
SOME = f"""
SELECT {COLUMNS} FROM tenant_webhook_endpoint
 WHERE ($1::text IS NULL OR tenant_id = $1) AND (NOT $2 OR NOT active) AND (NOT $3 OR failing_since IS NOT NULL)
 ORDER BY tenant_id, created_at, id
"""
ONE = f"SELECT {COLUMNS} FROM tenant_webhook_endpoint WHERE id = $1"
ADD = f"""
INSERT INTO tenant_webhook_endpoint
       (tenant_id, url, event_patterns, secret, ordered, rate_per_second, permanent_statuses, headers)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (tenant_id, url) DO NOTHING
RETURNING {COLUMNS}
"""
# Whoever rotated it meanwhile has handed out a secret that must not be lost: then nothing is changed.
ROTATE = f"""
UPDATE tenant_webhook_endpoint
   SET secret = $2, previous_secret = coalesce(secret, $3),
       previous_secret_until = CASE WHEN coalesce(secret, $3) IS NOT NULL THEN clock_timestamp() + $4::interval END
 WHERE id = $1 AND secret IS NOT DISTINCT FROM $5
RETURNING {COLUMNS}
"""
DISABLE = f"""
UPDATE tenant_webhook_endpoint SET active = false, disabled_at = clock_timestamp(), disabled_because = $2
 WHERE id = $1 AND active
RETURNING {COLUMNS}
"""
ENABLE = f"""
UPDATE tenant_webhook_endpoint SET active = true, disabled_at = NULL, disabled_because = NULL, failing_since = NULL
 WHERE id = $1
RETURNING {COLUMNS}
"""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """What is asked for."""

    tenant_id: str
    url: str
    patterns: Sequence[str]
    secret: str = field(repr=False)
    ordered: bool = False
    rate_per_second: float | None = None
    permanent_statuses: Sequence[int] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class BadEndpoint(ValueError):
    """The table refuses it; the sentence is PostgreSQL's."""


class EndpointTable:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def some(self, tenant_id: str | None, *, disabled: bool, failing: bool) -> list[Row]:
        """Return those of a tenant, or of all; the disabled, or those that fail now, alone."""
        async with self._database.connected() as connection:
            return [dict(row) for row in await connection.fetch(SOME, tenant_id, disabled, failing)]

    async def one(self, endpoint_id: str) -> Row | None:
        """Return one, or nothing."""
        return await self._row(ONE, UUID(endpoint_id))

    async def add(self, new: NewEndpoint) -> Row | None:
        """Add one and return it; nothing when the tenant has that URL already. Raises BadEndpoint."""
        values = (
            new.tenant_id,
            new.url,
            list(new.patterns),
            new.secret,
            new.ordered,
            new.rate_per_second,
            list(new.permanent_statuses),
            json.dumps(dict(new.headers)),
        )
        async with self._database.connected() as connection:
            try:
                row = await connection.fetchrow(ADD, *values)
            except asyncpg.CheckViolationError as error:
                raise BadEndpoint(str(error)) from error
        return dict(row) if row else None

    async def rotate(
        self, endpoint_id: str, secret: str, fallback: str | None, overlap: timedelta, *, known: str | None
    ) -> Row | None:
        """Give one a new secret, and keep its old one (`fallback`, where it had none of its own) for the overlap.

        Nothing is changed, and nothing returned, when its secret is not the `known` one any more.
        """
        return await self._row(ROTATE, UUID(endpoint_id), secret, fallback, overlap, known)

    async def disable(self, endpoint_id: str, because: str) -> Row | None:
        """Switch one off; nothing is returned when it is off or not there."""
        return await self._row(DISABLE, UUID(endpoint_id), because)

    async def enable(self, endpoint_id: str) -> Row | None:
        """Switch one on, its failures forgotten; nothing is returned when it is not there."""
        return await self._row(ENABLE, UUID(endpoint_id))

    async def _row(self, statement: str, *values: object) -> Row | None:
        async with self._database.connected() as connection:
            row = await connection.fetchrow(statement, *values)
        return dict(row) if row else None
