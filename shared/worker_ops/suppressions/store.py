"""The suppressed addresses as an operator sees them, and the note of what one did to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

LIST = """
SELECT tenant_id, channel, address, fingerprint, reason, created_at
  FROM notification_suppression
 WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR channel = $2)
   AND ($3::text IS NULL OR fingerprint = $3)
 ORDER BY created_at DESC, tenant_id, channel, fingerprint
 LIMIT $4
"""
RECORD = """
INSERT INTO notification_edit (verb, tenant_id, channel, fingerprint, edited_by, reason) VALUES ($1, $2, $3, $4, $5, $6)
"""


class SuppressionView:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, tenant: str | None, channel: str | None, fingerprint: str | None, limit: int) -> list[Any]:
        """Return suppressed addresses, the latest first; `None` asks for nothing."""
        async with self._database.connected() as connection:
            return list(await connection.fetch(LIST, tenant, channel, fingerprint, limit))

    async def record(self, verb: str, tenant: str, channel: str, fingerprint: str, by: str, reason: str) -> None:
        """Write down who changed something."""
        async with self._database.connected() as connection:
            await connection.execute(RECORD, verb, tenant, channel, fingerprint, by, reason)
