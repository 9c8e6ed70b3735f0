"""The events of a replay: chosen once, in one snapshot, then read a page at a time however long the replay takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from events_worker.store.claiming import EVENT, WRITTEN, event_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from events_worker.outbox import OutboxEvent
    from events_worker.store import Edit
    from worker_runtime.postgres import Database

# The connection's own: no long transaction holds up the vacuum, and which events it is stays what it was.
CHOSEN_TABLE = """
CREATE TEMPORARY TABLE IF NOT EXISTS replayed (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id uuid NOT NULL, event_type text
)
"""
# Handled events only: what is pending or under way comes to its handlers by itself, and a dead letter is retried. A
# writer's clock may be ahead, hence the day. An aggregate's handled events have no index in the outbox.
CHOOSE_BY = "SET LOCAL enable_seqscan = on"
CHOOSE = """
INSERT INTO replayed (id, event_type)
SELECT id, event_type
  FROM (SELECT id, event_type, position
          FROM domain_event_outbox
         WHERE status = 'processed' AND processed_at IS NOT NULL
           AND ($1::timestamptz IS NULL OR processed_at >= $1 - interval '1 day' AND created_at >= $1)
           AND ($2::timestamptz IS NULL OR created_at < $2)
           AND ($3::text IS NULL OR aggregate_hash = hashtext($3 || ':' || $4)
                AND aggregate_type = $3 AND aggregate_id = $4)
         UNION
        SELECT id, event_type, position
          FROM domain_event_outbox_archive
         WHERE status = 'processed'
           AND ($1::timestamptz IS NULL OR created_at >= $1)
           AND ($2::timestamptz IS NULL OR created_at < $2)
           AND ($3::text IS NULL OR aggregate_hash = hashtext($3 || ':' || $4)
                AND aggregate_type = $3 AND aggregate_id = $4)) AS event
 WHERE ($5::text IS NULL OR event_type = $5 OR ($5 LIKE '%*' AND starts_with(event_type, rtrim($5, '*'))))
   AND ($6::bigint IS NULL OR position > $6)
   AND NOT EXISTS (SELECT FROM domain_event_under_way AS busy WHERE busy.event_id = event.id)
 ORDER BY position
"""
BY_TYPE = "SELECT event_type, count(*) AS events FROM replayed GROUP BY event_type ORDER BY events DESC, event_type"
PAGE = f"""
SELECT {EVENT}, false AS again, chosen.number
  FROM (SELECT * FROM replayed WHERE number > $2 ORDER BY number LIMIT $3) AS chosen
  LEFT JOIN LATERAL (
       SELECT * FROM domain_event_outbox WHERE id = chosen.id
        UNION ALL
       SELECT * FROM domain_event_outbox_archive WHERE id = chosen.id
        LIMIT 1) AS event ON true {WRITTEN}
 ORDER BY chosen.number
"""
RECORD = "INSERT INTO domain_event_edit (event_id, verb, edited_by, reason) VALUES ($1, 'replay', $2, $3)"


@dataclass(frozen=True, slots=True)
class Range:
    """Which handled events: committed from then until then, of an aggregate, of a type, behind a position."""

    committed_from: datetime | None = None
    committed_until: datetime | None = None
    aggregate_type: str | None = None
    aggregate_id: str | None = None
    event_type: str | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some events in their order, and where the next page begins."""

    events: Sequence[OutboxEvent]
    last: int


class ReplayStore:
    """Every method raises `DatabaseUnavailable` for what time may cure. All of a replay is on one connection."""

    def __init__(self, database: Database, max_payload_bytes: int) -> None:
        self._database = database
        self._max_payload_bytes = max_payload_bytes

    async def choose(self, which: Range) -> list[dict[str, Any]]:
        """Choose the events and return how many there are of each type."""
        times, aggregate = (which.committed_from, which.committed_until), (which.aggregate_type, which.aggregate_id)
        async with self._database.transaction() as connection:
            await connection.execute(CHOSEN_TABLE)
            await connection.execute(CHOOSE_BY)
            await connection.execute(CHOOSE, *times, *aggregate, which.event_type, which.after)
            return [dict(row) for row in await connection.fetch(BY_TYPE)]

    async def page(self, after: int, limit: int) -> Page | None:
        """Return the next chosen events that still exist; `None` behind the last."""
        async with self._database.connected() as connection:
            rows = await connection.fetch(PAGE, self._max_payload_bytes, after, limit)
        # What was purged meanwhile is a row without an event.
        events = [event_of(row) for row in rows if row["id"] is not None]
        return Page(events, rows[-1]["number"]) if rows else None

    async def record(self, replay_id: str, edit: Edit) -> None:
        """Write down that somebody replays something."""
        async with self._database.connected() as connection:
            await connection.execute(RECORD, UUID(replay_id), edit.by, edit.reason)
