"""An event's turn: from the first look at its job until it is handled or dead, and what comes next of its aggregate."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from events_worker.store.claiming import CLAIM_HEADS, CLAIMED, STILL_PENDING, event_of
from events_worker.store.workflows import WORKFLOWS, concern_workflows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from events_worker.outbox import OutboxEvent
    from worker_runtime.postgres import Database

# Gone from the table, an event is handled, unless it was published by a release that kept no receipts.
# Whether it is any workflow's concern is asked here, for all events at once: asked for each it would cost those that
# are none a query, and an answer that is remembered would miss a wait that has just begun.
LOOK = f"""
SELECT CASE WHEN busy.event_id IS NOT NULL THEN 'under way'
            WHEN event.id IS NOT NULL AND event.processed_at IS NULL THEN 'pending'
            WHEN event.receipted THEN 'handled'
            WHEN EXISTS (SELECT FROM domain_event_outbox_archive AS old
                          WHERE old.id = asked.id AND old.receipted) THEN 'handled'
            ELSE 'unknown' END AS state,
       coalesce(busy.finished, '{{}}') AS finished, busy.dead_reason, busy.dead_attempt,
       event.id IS NULL OR {concern_workflows("event.tenant_id", "event.event_type")} AS concerns_workflows
  FROM unnest($1::uuid[]) WITH ORDINALITY AS asked (id, number)
  LEFT JOIN domain_event_under_way AS busy ON busy.event_id = asked.id
  LEFT JOIN domain_event_outbox AS event ON event.id = asked.id
 ORDER BY asked.number
"""

# Whatever the verdicts free, an aggregate's next event takes in the same commit: a busy aggregate waits for no poll.
# `locked` are those whose row somebody else holds, say a handler's transaction in a process that froze: they end later,
# the others now. `unclaimed` is handled though pending: its claim, which waits for no disk, went with a server that
# crashed.
END = f"""
WITH said AS MATERIALIZED (
    SELECT * FROM unnest($2::uuid[], $3::text[], $4::integer[], $5::boolean[]) AS s (id, dead_reason, attempt, blocks)
), verdict AS MATERIALIZED (
    SELECT said.*, busy.blocks AS held_up
      FROM said JOIN domain_event_under_way AS busy ON busy.event_id = said.id
       FOR UPDATE OF busy SKIP LOCKED
), locked AS (
    SELECT busy.event_id
      FROM said JOIN domain_event_under_way AS busy ON busy.event_id = said.id
     WHERE said.id NOT IN (SELECT id FROM verdict)
), handled AS (
    DELETE FROM domain_event_under_way AS busy
     USING verdict
     WHERE busy.event_id = verdict.id AND verdict.dead_reason IS NULL
    RETURNING busy.*
), buried AS (
    UPDATE domain_event_under_way AS busy
       SET dead_reason = verdict.dead_reason, dead_attempt = verdict.attempt, blocks = busy.blocks AND verdict.blocks
      FROM verdict
     WHERE busy.event_id = verdict.id AND verdict.dead_reason IS NOT NULL
    RETURNING busy.*, verdict.held_up
), unclaimed AS (
    UPDATE domain_event_outbox AS event
       SET status = 'processed', last_error = NULL, processed_at = clock_timestamp(), receipted = true
      FROM said
     WHERE event.id = said.id AND said.dead_reason IS NULL AND {STILL_PENDING}
       AND NOT EXISTS (SELECT FROM domain_event_under_way AS busy WHERE busy.event_id = event.id)
    RETURNING event.*
), revived AS (
    UPDATE domain_event_outbox AS event
       SET status = 'processed', last_error = NULL, processed_at = clock_timestamp()
      FROM handled
     WHERE event.id = handled.event_id AND handled.dead_reason IS NOT NULL
), revived_in_archive AS (
    UPDATE domain_event_outbox_archive AS event
       SET status = 'processed', last_error = NULL, processed_at = clock_timestamp()
      FROM handled
     WHERE event.id = handled.event_id AND handled.dead_reason IS NOT NULL
), dead AS (
    UPDATE domain_event_outbox AS event
       SET status = 'dead_letter', last_error = buried.dead_reason, processed_at = clock_timestamp()
      FROM buried
     WHERE event.id = buried.event_id
), heads AS MATERIALIZED (
    SELECT next.id
      FROM (SELECT aggregate_type, aggregate_id FROM handled WHERE blocks
             UNION ALL
            SELECT aggregate_type, aggregate_id FROM unclaimed
             UNION ALL
            SELECT aggregate_type, aggregate_id FROM buried WHERE held_up AND NOT blocks) AS freed
     CROSS JOIN LATERAL (
           SELECT id, next_retry_at
             FROM domain_event_outbox AS event
            WHERE num_nulls(event.processed_at) = 1
              -- Pending when this statement began, and handled by it.
              AND event.id <> ALL ($2::uuid[])
              AND event.aggregate_type = freed.aggregate_type
              AND event.aggregate_id = freed.aggregate_id
            ORDER BY position
            LIMIT 1) AS next
     WHERE $6 AND (next.next_retry_at IS NULL OR next.next_retry_at <= now())
), {CLAIM_HEADS}
SELECT held.ids AS locked, following.*
  FROM (SELECT ARRAY(SELECT event_id FROM locked)) AS held (ids)
  LEFT JOIN ({CLAIMED}) AS following ON true
 ORDER BY following.sequence
"""

RECEIPT = """
UPDATE domain_event_under_way
   SET finished = finished || $2::text[]
 WHERE event_id = $1 AND NOT finished @> $2::text[]
"""
# Not to be waited for: whoever waits is in the way of all other ends.
RECEIPT_NOW = """
UPDATE domain_event_under_way
   SET finished = finished || $2::text[]
 WHERE event_id = (SELECT event_id FROM domain_event_under_way WHERE event_id = $1 FOR UPDATE NOWAIT)
   AND NOT finished @> $2::text[]
"""


NOT_WORKFLOWS = frozenset({WORKFLOWS})


class Standing(enum.Enum):
    """Where an event stands when its job begins."""

    UNDER_WAY = "under way"
    PENDING = "pending"
    HANDLED = "handled"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Turn:
    """What a job of that event may do: run the handlers that are neither `finished` nor `unconcerned`, or nothing.

    `dead_reason` and `dead_attempt` say that and of which attempt it died, when it has. `unconcerned` are those that
    would find nothing to do.
    """

    standing: Standing
    finished: frozenset[str]
    dead_reason: str | None = None
    dead_attempt: int | None = None
    unconcerned: frozenset[str] = frozenset()

    @property
    def left_out(self) -> frozenset[str]:
        """The handlers that need not run."""
        return self.finished | self.unconcerned


@dataclass(frozen=True, slots=True)
class End:
    """How an event's turn ends: handled or, with a reason, dead, and then `blocks` the later ones of its aggregate.

    `attempt` is the one that it died of, counted from 1; 0 when it never was tried.
    """

    event_id: str
    dead_reason: str | None = None
    blocks: bool = False
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of many ends: the events whose turn begins by them, and the ids of those that somebody else holds."""

    following: list[OutboxEvent]
    locked: frozenset[str]


class TurnStore:
    """Looks and ends for many events at a time. Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, looks: Database, ends: Database, max_payload_bytes: int) -> None:
        self._looks = looks
        self._ends = ends
        self._max_payload_bytes = max_payload_bytes

    async def look(self, event_ids: Sequence[UUID]) -> list[Turn]:
        """Return the turn of each event, in order."""
        async with self._looks.connected() as connection:
            rows = await connection.fetch(LOOK, event_ids)
        return [turn_of(row) for row in rows]

    async def end(self, ends: Sequence[End], *, claim_next: bool) -> Ended:
        """End turns in one commit; may be repeated, and for those that are `locked` must be."""
        ids = [UUID(end.event_id) for end in ends]
        reasons, attempts = [end.dead_reason for end in ends], [end.attempt for end in ends]
        blocks = [end.blocks for end in ends]
        async with self._ends.connected() as connection:
            rows = await connection.fetch(END, self._max_payload_bytes, ids, reasons, attempts, blocks, claim_next)
        return Ended([event_of(row) for row in rows if row["id"]], frozenset(map(str, rows[0]["locked"])))

    async def note_finished(self, event_id: str, handlers: Sequence[str]) -> None:
        """Keep receipts, so that a retry of the event leaves these handlers out."""
        async with self._ends.connected() as connection:
            await connection.execute(RECEIPT_NOW, UUID(event_id), list(handlers))


def turn_of(row: asyncpg.Record) -> Turn:
    """Read a row of `LOOK`."""
    unconcerned = frozenset() if row["concerns_workflows"] else NOT_WORKFLOWS
    finished = frozenset(row["finished"])
    return Turn(Standing(row["state"]), finished, row["dead_reason"], row["dead_attempt"], unconcerned)
