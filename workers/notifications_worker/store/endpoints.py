"""The webhook endpoints of tenants, in `tenant_webhook_endpoint`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import asyncpg

    from worker_runtime.postgres import Database

GONE, ONLY_FAILURES = "GONE", "ONLY_FAILURES"
COLUMNS = """
SELECT id::text, tenant_id, url, secret, headers, permanent_statuses, rate_per_second, ordered,
       failing_since IS NOT NULL AS failing,
       CASE WHEN previous_secret_until > clock_timestamp() THEN previous_secret END AS previous_secret,
       CASE WHEN NOT active THEN coalesce(disabled_because, 'switched off') END AS disabled_because
  FROM tenant_webhook_endpoint
"""
BY_ID = f"{COLUMNS} WHERE id = $2 AND tenant_id = $1"
BY_URL = f"{COLUMNS} WHERE tenant_id = $1 AND url = $2"
SUCCEEDED = "UPDATE tenant_webhook_endpoint SET failing_since = NULL WHERE id = $1 AND failing_since IS NOT NULL"
FAILED = """
UPDATE tenant_webhook_endpoint SET failing_since = clock_timestamp() WHERE id = $1 AND failing_since IS NULL
"""
# One statement, so that no endpoint is disabled without its tenant being told, nor told of twice.
DISABLE = """
WITH disabled AS (
    UPDATE tenant_webhook_endpoint
       SET active = false, disabled_at = clock_timestamp(), disabled_because = $2
     WHERE id = $1 AND active AND ($3 OR failing_since <= clock_timestamp() - $4 * interval '1 second')
    RETURNING id, tenant_id, failing_since, disabled_at, disabled_because
)
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
SELECT gen_random_uuid(), 'webhook.endpoint_disabled', 'webhook_endpoint', id::text, tenant_id,
       jsonb_build_object('endpointId', id, 'tenantId', tenant_id, 'host', $5::text, 'reason', disabled_because,
                          'failingSince', failing_since, 'disabledAt', disabled_at),
       jsonb_build_object('correlationId', id, 'timestamp', disabled_at, 'version', '1.0')
  FROM disabled
RETURNING aggregate_id
"""


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """A row as it stands. `previous_secret` is one that still is to be used, `disabled_because` is set when it is."""

    id: str
    tenant_id: str
    url: str = field(repr=False)
    secret: str | None = field(repr=False)
    previous_secret: str | None = field(repr=False)
    headers: Mapping[str, Any] = field(repr=False)
    permanent_statuses: Sequence[int]
    rate_per_second: float | None
    ordered: bool
    failing: bool
    disabled_because: str | None


class EndpointStore:
    """Reads them, and notes how they do. Raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, tenant_id: str, endpoint_id: UUID | None, url: str | None) -> EndpointRow | None:
        """Return the tenant's endpoint with that id or, where there is none, with that URL."""
        async with self._database.connected() as connection:
            row = await connection.fetchrow(BY_ID, tenant_id, endpoint_id) if endpoint_id else None
            if row is None and url is not None:
                row = await connection.fetchrow(BY_URL, tenant_id, url)
        return _row(row) if row else None

    async def succeeded(self, endpoint_id: str) -> None:
        """Note that it took a message: its failures are over."""
        async with self._database.connected() as connection:
            await connection.execute(SUCCEEDED, UUID(endpoint_id))

    async def failed(self, endpoint_id: str, host: str | None, *, gone: bool, disable_after_seconds: float) -> bool:
        """Note that it took none; disable it when it is `gone` or failed for so long, and return whether that was now.

        The event that tells its tenant, with the `host` of its URL, is committed together with that.
        """
        why = GONE if gone else ONLY_FAILURES
        async with self._database.transaction() as connection:
            await connection.execute(FAILED, UUID(endpoint_id))
            disabled = await connection.fetchval(DISABLE, UUID(endpoint_id), why, gone, disable_after_seconds, host)
        return disabled is not None


def _row(row: asyncpg.Record) -> EndpointRow:
    return EndpointRow(**{**row, "headers": json.loads(row["headers"])})
