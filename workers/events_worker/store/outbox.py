"""The relay's view of the outbox: claim what comes next, find what got lost on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from events_worker.store.claiming import CLAIM_HEADS, CLAIMED, EVENT, WRITTEN, event_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from events_worker.outbox import OutboxEvent
    from worker_runtime.postgres import Database

# Pending is said in three ways. `processed_at IS NULL` is answered by the index in the order of positions,
# `num_nulls(processed_at) = 1` by the one in the order of aggregates, and the third, in `claiming`, by neither: left to
# itself the planner takes a backlog, of which it has no statistics yet, for one row, and walks through all of it.

# How many of the oldest pending events are looked at for those that are next of their aggregate.
NEAR = 1_000

# A claim ends with the event that makes its payloads larger than this, in bytes as they are stored, which may be a few
# times as many once read: a hundred of the largest at a time would stop the event loop for a second.
MOST_STORED_BYTES = 4_194_304

# $3 and $4 say which partitions we believe to own by which tokens, $5 how many partitions there are.
MINE = """
mine AS MATERIALIZED (
    SELECT ARRAY(
        SELECT held.partition
          FROM unnest($3::int[], $4::bigint[]) AS believed (partition, token)
          JOIN domain_event_partition AS held USING (partition, token)
         WHERE held.lease_until > clock_timestamp()) AS partitions
)
"""
DUE = """
       (next.next_retry_at IS NULL OR next.next_retry_at <= now())
   AND (next.aggregate_hash & 2147483647) % $5 = ANY ((SELECT partitions FROM mine)::int[])
   AND NOT EXISTS (SELECT FROM domain_event_under_way AS busy
                    WHERE busy.blocks AND busy.event_id <> next.id
                      AND busy.aggregate_type = next.aggregate_type AND busy.aggregate_id = next.aggregate_id
                   OFFSET 0)
"""

FITTING = f"""
heads AS MATERIALIZED (
    SELECT id
      FROM (SELECT id, coalesce(sum(bytes) OVER (ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)
                   AS bytes_before
              FROM next) AS fitting
     WHERE bytes_before < {MOST_STORED_BYTES}
)
"""

# OFFSET 0 keeps the planner from turning a look into an index for each of a hundred rows into a walk over all.
CLAIM_NEAR = f"""
WITH {MINE}, next AS (
    SELECT next.id, next.position, pg_column_size(next.payload) AS bytes
      FROM (SELECT * FROM domain_event_outbox WHERE processed_at IS NULL ORDER BY position LIMIT {NEAR}) AS next
     WHERE {DUE}
       AND NOT EXISTS (SELECT FROM domain_event_outbox AS earlier
                        WHERE num_nulls(earlier.processed_at) = 1
                          AND earlier.aggregate_type = next.aggregate_type
                          AND earlier.aggregate_id = next.aggregate_id
                          AND earlier.position < next.position
                       OFFSET 0)
     ORDER BY next.position
     LIMIT $2
), {FITTING}, {CLAIM_HEADS} {CLAIMED} ORDER BY position
"""

# Behind thousands of events that wait for their aggregates, other aggregates are found by going from one to the next.
CLAIM_FAR = f"""
WITH RECURSIVE {MINE}, first AS (
    (SELECT id, aggregate_type, aggregate_id, aggregate_hash, next_retry_at, position, pg_column_size(payload) AS bytes
       FROM domain_event_outbox
      WHERE num_nulls(processed_at) = 1
        AND EXISTS (SELECT FROM domain_event_outbox WHERE processed_at IS NULL OFFSET {NEAR})
      ORDER BY aggregate_type, aggregate_id, position
      LIMIT 1)
    UNION ALL
    SELECT following.*
      FROM first CROSS JOIN LATERAL (
           SELECT id, aggregate_type, aggregate_id, aggregate_hash, next_retry_at, position, pg_column_size(payload)
             FROM domain_event_outbox
            WHERE num_nulls(processed_at) = 1
              AND (aggregate_type, aggregate_id) > (first.aggregate_type, first.aggregate_id)
            ORDER BY aggregate_type, aggregate_id, position
            LIMIT 1) AS following
), next AS (
    SELECT id, position, bytes FROM first AS next WHERE {DUE} LIMIT $2
), {FITTING}, {CLAIM_HEADS} {CLAIMED} ORDER BY position
"""

# Whoever owns its partition. What waits for an earlier event, for its time or for a person is not left, but to come.
LEFT = """
SELECT EXISTS (
    SELECT FROM domain_event_outbox AS next
     WHERE processed_at IS NULL
       AND (next_retry_at IS NULL OR next_retry_at <= now())
       AND NOT EXISTS (SELECT FROM domain_event_under_way AS busy
                        WHERE busy.blocks
                          AND busy.aggregate_type = next.aggregate_type AND busy.aggregate_id = next.aggregate_id
                       OFFSET 0))
"""

# Published, and not handled for a while: waiting in the queue, at work, or lost with a Redis that forgot them.
UNDER_WAY = """
SELECT event_id
  FROM domain_event_under_way
 WHERE dead_reason IS NULL
   AND claimed_at < clock_timestamp() - make_interval(secs => $1)
   AND (aggregate_hash & 2147483647) % $2 = ANY ($3::int[])
   AND event_id > $4
 ORDER BY event_id
 LIMIT $5
"""

# In the archive too: somebody may have moved it there by hand. What is dead by now is left alone.
WRITTEN_DOWN = f"""
SELECT {EVENT}, true AS again
  FROM domain_event_under_way AS busy
 CROSS JOIN LATERAL (
       SELECT * FROM domain_event_outbox WHERE id = busy.event_id
        UNION ALL
       SELECT * FROM domain_event_outbox_archive WHERE id = busy.event_id
        LIMIT 1) AS event {WRITTEN}
 WHERE busy.event_id = ANY ($2::uuid[]) AND busy.dead_reason IS NULL
 ORDER BY event.position
"""

FORGET_ROWLESS = """
DELETE FROM domain_event_under_way AS busy
 WHERE busy.event_id = ANY ($1::uuid[])
   AND NOT EXISTS (SELECT FROM domain_event_outbox WHERE id = busy.event_id)
   AND NOT EXISTS (SELECT FROM domain_event_outbox_archive WHERE id = busy.event_id)
RETURNING busy.event_id
"""


class OutboxStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database, partitions: int, max_payload_bytes: int) -> None:
        self._database = database
        self._partitions = partitions
        self._max_payload_bytes = max_payload_bytes

    async def claim(self, limit: int, tokens: Mapping[int, int]) -> list[OutboxEvent]:
        """Put up to `limit` events under way, each the next of its aggregate, and return them in their order.

        `tokens` are by partition; of one that has a new owner nothing is claimed.
        """
        if not tokens:
            return []
        async with self._database.connected() as connection:
            arguments = (list(tokens), list(tokens.values()), self._partitions)
            rows = await connection.fetch(CLAIM_NEAR, self._max_payload_bytes, limit, *arguments)
            if len(rows) < limit:
                rows += await connection.fetch(CLAIM_FAR, self._max_payload_bytes, limit - len(rows), *arguments)
        return [event_of(row) for row in rows]

    async def anything_left(self) -> bool:
        """Tell whether any partition holds an event that could be claimed now."""
        async with self._database.connected() as connection:
            return bool(await connection.fetchval(LEFT))

    async def under_way(
        self, partitions: Sequence[int], older_than_seconds: float, after: str, limit: int
    ) -> list[str]:
        """Return ids, in their order and after that one, of events that were claimed that long ago and not finished."""
        async with self._database.connected() as connection:
            rows = await connection.fetch(
                UNDER_WAY, older_than_seconds, self._partitions, partitions, UUID(after), limit
            )
        return [str(row["event_id"]) for row in rows]

    async def still_under_way(self, event_ids: Sequence[str]) -> list[OutboxEvent]:
        """Return those of the events that are neither finished nor dead, with all that publishing needs."""
        ids = [UUID(event_id) for event_id in event_ids]
        async with self._database.connected() as connection:
            rows = await connection.fetch(WRITTEN_DOWN, self._max_payload_bytes, ids)
        return [event_of(row) for row in rows]

    async def forget_rowless(self, event_ids: Sequence[str]) -> list[str]:
        """Stop waiting for those of the events of which no row is left anywhere; return their ids."""
        async with self._database.connected() as connection:
            rows = await connection.fetch(FORGET_ROWLESS, [UUID(event_id) for event_id in event_ids])
        return [str(row["event_id"]) for row in rows]
