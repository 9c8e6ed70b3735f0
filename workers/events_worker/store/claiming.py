"""How an event gets under way: the one piece of SQL that the relay and the end of an earlier event share.

Rows of `domain_event_outbox` that a caller found to be next (`heads`: only `id` counts) become `processed`, and rows of
`domain_event_under_way`. What somebody else has locked is left for later: another caller, who wants it too, or a person
in a transaction, for whom no other aggregate should wait. Two events of one aggregate at once break the unique key, and
the whole statement with it.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

from events_worker.outbox import OutboxEvent

if TYPE_CHECKING:
    import asyncpg

# What the relay reads of an event. Its time is text because PostgreSQL knows times that Python does not (infinity,
# before Christ), and one such row must not stop the relay. OFFSET 0 keeps the planner from writing the payload out
# twice. $1 is the size in bytes up to which payloads are wanted.
EVENT = """
       event.id::text AS id, event.event_type, event.aggregate_type, event.aggregate_id, event.tenant_id,
       event.position AS sequence,
       event.metadata::text AS metadata,
       to_char(event.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at,
       octet_length(written.payload) AS payload_size,
       CASE WHEN octet_length(written.payload) <= $1 THEN written.payload END AS payload
"""
WRITTEN = "CROSS JOIN LATERAL (SELECT event.payload::text AS payload OFFSET 0) AS written"

# Of rows found by their id. See `store.outbox` for why it is not said more simply.
STILL_PENDING = "coalesce(event.processed_at, 'infinity') = 'infinity'"

# An event that is under way already is one that an operator made pending again: its receipts count. One that was
# handled begins anew; the queue may know the jobs of both. A locked row stays in its place, which is found without the
# index.
CLAIM_HEADS = f"""
free AS (
    SELECT event.ctid AS place, event.receipted
      FROM heads JOIN domain_event_outbox AS event USING (id)
     WHERE {STILL_PENDING}
       FOR UPDATE OF event SKIP LOCKED
), taken AS (
    UPDATE domain_event_outbox AS event
       SET status = 'processed', last_error = NULL, processed_at = clock_timestamp(), receipted = true
      FROM free
     WHERE event.ctid = free.place
    RETURNING event.*, free.receipted AS was_receipted
), claimed AS (
    INSERT INTO domain_event_under_way AS busy (event_id, aggregate_type, aggregate_id, aggregate_hash)
    SELECT id, aggregate_type, aggregate_id, aggregate_hash FROM taken
        ON CONFLICT (event_id) DO UPDATE
       SET dead_reason = NULL, dead_attempt = NULL, blocks = true, claimed_at = clock_timestamp()
)
"""
# Whether an event was under way before is asked of the table as it was when the statement began: a join with what was
# just inserted costs a hundred times as much.
CLAIMED = f"""
SELECT {EVENT},
       event.was_receipted
       OR EXISTS (SELECT FROM domain_event_under_way AS busy WHERE busy.event_id = event.id OFFSET 0) AS again
  FROM taken AS event {WRITTEN}
"""


fields_of = itemgetter(*OutboxEvent._fields)


def event_of(row: asyncpg.Record) -> OutboxEvent:
    """Read a row of `EVENT` and `again`."""
    return OutboxEvent._make(fields_of(row))
