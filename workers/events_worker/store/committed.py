"""One committed event by its id, wherever it has got to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events_worker.store.claiming import EVENT, WRITTEN, event_of

if TYPE_CHECKING:
    from uuid import UUID

    from events_worker.outbox import OutboxEvent
    from worker_runtime.postgres import Database

ANYWHERE = f"""
SELECT {EVENT}, false AS again
  FROM (SELECT id, event_type, aggregate_type, aggregate_id, tenant_id, position, metadata, created_at, payload
          FROM domain_event_outbox WHERE id = $2
         UNION ALL
        SELECT id, event_type, aggregate_type, aggregate_id, tenant_id, position, metadata, created_at, payload
          FROM domain_event_outbox_archive WHERE id = $2) AS event {WRITTEN}
 LIMIT 1
"""


async def committed_event(database: Database, event_id: UUID, max_payload_bytes: int) -> OutboxEvent | None:
    """Return the event from the outbox or its archive; raises `DatabaseUnavailable`."""
    async with database.connected() as connection:
        row = await connection.fetchrow(ANYWHERE, max_payload_bytes, event_id)
    return event_of(row) if row else None
