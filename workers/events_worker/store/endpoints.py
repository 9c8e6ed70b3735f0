"""The webhook endpoints that tenants have registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events_worker.endpoints import Endpoint

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

ACTIVE = """
SELECT id::text, url, event_patterns
  FROM tenant_webhook_endpoint
 WHERE tenant_id = $1 AND active
 ORDER BY created_at, id
"""


class EndpointStore:
    """Reads them. Raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_tenant(self, tenant_id: str) -> list[Endpoint]:
        """Return the tenant's active endpoints, the oldest first."""
        async with self._database.connected() as connection:
            rows = await connection.fetch(ACTIVE, tenant_id)
        return [Endpoint(row["id"], row["url"], tuple(row["event_patterns"])) for row in rows]
