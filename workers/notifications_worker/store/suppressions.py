"""The addresses that nothing is sent to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from notifications_worker.suppression import fingerprint
from worker_runtime.batching import Batcher
from worker_runtime.postgres import storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_runtime.postgres import Database

MOST_TOGETHER = 100

REASONS = """
SELECT known.reason
  FROM unnest($1::text[], $2::text[], $3::text[])
       WITH ORDINALITY AS asked (tenant_id, channel, fingerprint, number)
  LEFT JOIN notification_suppression AS known USING (tenant_id, channel, fingerprint)
 ORDER BY number
"""
ADD = """
INSERT INTO notification_suppression (tenant_id, channel, fingerprint, address, reason)
VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING
"""
REMOVE = """
DELETE FROM notification_suppression WHERE tenant_id = $1 AND channel = $2 AND fingerprint = $3 RETURNING true
"""


class _Asked(NamedTuple):
    tenant: str
    channel: str
    fingerprint: str


class SuppressionStore:
    """See `Suppressions`. Raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, looks: Database, changes: Database) -> None:
        self._looks = looks
        self._changes = changes
        self._reason: Batcher[_Asked, str | None] = Batcher(self._reasons, MOST_TOGETHER)

    async def reason(self, tenant: str, channel: str, address: str) -> str | None:
        """See `Suppressions`."""
        return await self._reason(_Asked(storable(tenant), channel, fingerprint(address)))

    async def add(self, tenant: str, channel: str, address: str, reason: str) -> None:
        """See `Suppressions`."""
        async with self._changes.connected() as connection:
            await connection.execute(ADD, storable(tenant), channel, fingerprint(address), storable(address), reason)

    async def remove(self, tenant: str, channel: str, address: str) -> bool:
        """See `Suppressions`."""
        async with self._changes.connected() as connection:
            return bool(await connection.fetchval(REMOVE, storable(tenant), channel, fingerprint(address)))

    async def _reasons(self, asked: Sequence[_Asked]) -> list[str | None]:
        async with self._looks.connected() as connection:
            rows = await connection.fetch(REASONS, *(list(column) for column in zip(*asked, strict=True)))
        return [row["reason"] for row in rows]
