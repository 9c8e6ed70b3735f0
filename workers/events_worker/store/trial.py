"""Events of a handler's test: committed and under way at once, before any relay sees them, and removed at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from events_worker.store.claiming import CLAIM_HEADS, CLAIMED, event_of

if TYPE_CHECKING:
    from events_worker.outbox import OutboxEvent
    from worker_runtime.postgres import Database

INSERT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
CLAIM = f"""
WITH heads AS MATERIALIZED (
    SELECT next.id
      FROM domain_event_outbox AS next
     WHERE next.id = $2
       AND NOT EXISTS (SELECT FROM domain_event_under_way AS busy
                        WHERE busy.blocks
                          AND busy.aggregate_type = next.aggregate_type AND busy.aggregate_id = next.aggregate_id)
), {CLAIM_HEADS} {CLAIMED}
"""
# The table's trigger archives what is deleted, so the archive comes last.
REMOVE = (
    "DELETE FROM domain_event_under_way WHERE event_id = ANY ($1::uuid[])",
    "DELETE FROM domain_event_outbox WHERE id = ANY ($1::uuid[])",
    "DELETE FROM domain_event_outbox_archive WHERE id = ANY ($1::uuid[])",
)


class TrialStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database, max_payload_bytes: int) -> None:
        self._database = database
        self._max_payload_bytes = max_payload_bytes
        self._committed: list[UUID] = []

    async def commit(self, *columns: str) -> list[OutboxEvent]:
        """Insert an event, its columns in the order of the table, and put it under way unless its turn is to come."""
        event_id = UUID(columns[0])
        async with self._database.transaction() as connection:
            await connection.execute(INSERT, event_id, *columns[1:])
            rows = await connection.fetch(CLAIM, self._max_payload_bytes, event_id)
        self._committed.append(event_id)
        return [event_of(row) for row in rows]

    async def remove(self) -> None:
        """Forget all of them."""
        async with self._database.transaction() as connection:
            for statement in REMOVE:
                await connection.execute(statement, self._committed)
