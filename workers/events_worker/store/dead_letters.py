"""Dead letters as somebody who mends them sees them: find, group, retry, discard; each change leaves its history.

A dead letter is a row with that status in the outbox or, after a week, in the archive. Retrying it is making it pending
again: the relay does the rest. A row that somebody else changes at the same moment is left to whoever came first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from events_worker.store.upkeep import DISCARDED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from worker_runtime.postgres import Database

# No statement changes more than this many events.
MOST_AT_ONCE = 1_000

# Oldest death first. $1 to $7 are a `Selection`. What is in both tables was copied by hand, and the outbox is right.
CHOSEN = f"""
SELECT id, event_type, aggregate_type, aggregate_id, tenant_id, coalesce(last_error, '') AS error,
       left(split_part(coalesce(last_error, ''), ':', 1), 64) AS code, retry_count, processed_at AS died_at, archived,
       coalesce(version, '1.0') AS version
  FROM (SELECT id, event_type, aggregate_type, aggregate_id, tenant_id, last_error, retry_count, processed_at,
               metadata ->> 'version' AS version, false AS archived
          FROM domain_event_outbox
         WHERE status = 'dead_letter' AND processed_at IS NOT NULL
         UNION ALL
        SELECT id, event_type, aggregate_type, aggregate_id, tenant_id, last_error, retry_count, processed_at,
               metadata ->> 'version', true
          FROM domain_event_outbox_archive AS old
         WHERE status = 'dead_letter' AND processed_at IS NOT NULL
           AND NOT EXISTS (SELECT FROM domain_event_outbox AS event WHERE event.id = old.id)) AS event
 WHERE ($1::uuid[] IS NULL OR id = ANY ($1))
   AND ($2::text IS NULL OR event_type = $2 OR ($2 LIKE '%*' AND starts_with(event_type, rtrim($2, '*'))))
   AND ($3::text IS NULL OR aggregate_type = $3)
   AND ($4::text IS NULL OR aggregate_id = $4)
   AND ($5::timestamptz IS NULL OR processed_at < $5)
   AND ($6::timestamptz IS NULL OR processed_at >= $6)
   AND ($7::text IS NULL AND (coalesce(last_error, '') NOT LIKE '{DISCARDED}:%' OR $1 IS NOT NULL)
        OR split_part(coalesce(last_error, ''), ':', 1) = $7)
"""
FIND = f"""
SELECT event.*, coalesce(busy.blocks, false) AS blocks
  FROM ({CHOSEN}) AS event LEFT JOIN domain_event_under_way AS busy ON busy.event_id = event.id
 WHERE $8::timestamptz IS NULL OR (died_at, id) > ($8, $9::uuid)
 ORDER BY died_at, id
 LIMIT $10
"""
# By sorting, which goes to disk when it must: an aggregate of all examples would hold millions of them in memory.
GROUPS = f"""
SELECT *
  FROM (SELECT DISTINCT ON (code, event_type)
               code, event_type, count(*) OVER kind AS count, min(died_at) OVER kind AS oldest,
               max(died_at) OVER kind AS newest, id AS example, error
          FROM ({CHOSEN}) AS event
        WINDOW kind AS (PARTITION BY code, event_type)
         ORDER BY code, event_type, died_at, id) AS kinds
 ORDER BY count DESC, code, event_type
"""
COUNT = f"SELECT count(*) FROM ({CHOSEN}) AS event"
NOW = "SELECT clock_timestamp()"
STATUSES = """
SELECT id, status FROM domain_event_outbox_archive WHERE id = ANY ($1::uuid[])
 UNION ALL
SELECT id, status FROM domain_event_outbox WHERE id = ANY ($1::uuid[])
"""

COLUMNS = (
    "id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata, status, retry_count, next_retry_at,"
    " last_error, created_at, processed_at, position, receipted"
)
BACK_FROM_ARCHIVE = f"""
INSERT INTO domain_event_outbox ({COLUMNS}) OVERRIDING SYSTEM VALUE
SELECT DISTINCT ON (id) {COLUMNS}
  FROM domain_event_outbox_archive
 WHERE id = ANY ($1::uuid[]) AND status = 'dead_letter'
 ORDER BY id
    ON CONFLICT (id) DO NOTHING
"""
# Also what was there beside the row of the outbox: it would be archived as what it was.
OUT_OF_ARCHIVE = """
DELETE FROM domain_event_outbox_archive AS old USING domain_event_outbox AS event
 WHERE old.id = ANY ($1::uuid[]) AND old.status = 'dead_letter' AND event.id = old.id
"""
LOCKED = """
before AS MATERIALIZED (
    SELECT id, last_error, payload
      FROM domain_event_outbox
     WHERE id = ANY ($1::uuid[]) AND status = 'dead_letter' AND processed_at IS NOT NULL
     ORDER BY id
       FOR UPDATE
)
"""
HISTORY = """
history AS (
    INSERT INTO domain_event_edit (event_id, verb, edited_by, reason, error_before, payload_before)
    SELECT id, $2, $3, $4, last_error, CASE WHEN $5::jsonb IS NOT NULL THEN payload END FROM before
)
"""
RETRY = f"""
WITH {LOCKED}, again AS (
    UPDATE domain_event_outbox AS event
       SET status = 'pending', processed_at = NULL, next_retry_at = NULL, retry_count = retry_count + 1,
           payload = coalesce($5::jsonb, event.payload)
      FROM before
     WHERE event.id = before.id
), {HISTORY}
SELECT id FROM before
"""
# A dead letter holds nobody up any more; should its job be run after all, it still finds its receipts.
DISCARD = f"""
WITH {LOCKED}, mark AS (
    UPDATE domain_event_outbox AS event
       SET last_error = left(concat('{DISCARDED}: ', $4::text, ' (by ', $3::text, '; it was: ', before.last_error, ')'),
                             2000)
      FROM before
     WHERE event.id = before.id AND coalesce(before.last_error, '') NOT LIKE '{DISCARDED}:%'
), freed AS (
    UPDATE domain_event_under_way AS busy SET blocks = false FROM before
     WHERE busy.event_id = before.id AND busy.dead_reason IS NOT NULL
), {HISTORY}
SELECT id FROM before
"""
# What `NOTIFY` is to the relay: it looks at once, instead of at its next poll.
HINT = "SELECT pg_notify('domain_event_outbox', '')"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters. `None` asks for nothing; a type may end with `*`; times are those of death.

    Discarded ones are found by their id or by the code `DISCARDED` only.
    """

    event_ids: Sequence[str] | None = None
    event_type: str | None = None
    aggregate_type: str | None = None
    aggregate_id: str | None = None
    code: str | None = None
    died_before: datetime | None = None
    died_after: datetime | None = None

    @property
    def arguments(self) -> tuple[object, ...]:
        """The parameters of `CHOSEN`."""
        ids = None if self.event_ids is None else [UUID(event_id) for event_id in self.event_ids]
        times = (self.died_before, self.died_after)
        return (ids, self.event_type, self.aggregate_type, self.aggregate_id, *times, self.code)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead event; `blocks`: the later ones of its aggregate wait for it. `error` holds no personal data."""

    id: str
    event_type: str
    version: str
    aggregate_type: str
    aggregate_id: str
    tenant_id: str
    code: str
    error: str
    retry_count: int
    died_at: datetime
    archived: bool
    blocks: bool


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """Dead letters of one type that died of the same; `example` is the one that died first."""

    code: str
    event_type: str
    count: int
    oldest: datetime
    newest: datetime
    example: str
    error: str


@dataclass(frozen=True, slots=True)
class Edit:
    """Who changes something, and why; both are kept."""

    by: str
    reason: str = ""


class DeadLetterStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self) -> datetime:
        """Return the database's time, by which events die."""
        async with self._database.connected() as connection:
            moment: datetime = await connection.fetchval(NOW)
        return moment

    async def count(self, selection: Selection) -> int:
        """Count what is selected."""
        async with self._database.connected() as connection:
            return int(await connection.fetchval(COUNT, *selection.arguments))

    async def groups(self, selection: Selection) -> list[DeadGroup]:
        """Count what is selected by error code and event type, the largest group first."""
        async with self._database.connected() as connection:
            rows = await connection.fetch(GROUPS, *selection.arguments)
        return [DeadGroup(**(dict(row) | {"example": str(row["example"])})) for row in rows]

    async def find(self, selection: Selection, limit: int, after: DeadLetter | None = None) -> list[DeadLetter]:
        """Return what is selected, oldest death first, from behind `after`."""
        place = (after.died_at, UUID(after.id)) if after else (None, None)
        async with self._database.connected() as connection:
            rows = await connection.fetch(FIND, *selection.arguments, *place, limit)
        return [DeadLetter(**(dict(row) | {"id": str(row["id"])})) for row in rows]

    async def statuses(self, event_ids: Sequence[str]) -> dict[str, str]:
        """Return the status of each event that exists."""
        async with self._database.connected() as connection:
            rows = await connection.fetch(STATUSES, [UUID(event_id) for event_id in event_ids])
        return {str(row["id"]): row["status"] for row in rows}

    async def retry(self, event_ids: Sequence[str], edit: Edit, payload: str | None = None) -> set[str]:
        """Make dead events pending again, at most `MOST_AT_ONCE`, with another payload if one is given (JSON).

        Returns the ids of those that were dead letters; the others are as they were.
        """
        return await self._change(RETRY, event_ids, "retry", edit, payload)

    async def discard(self, event_ids: Sequence[str], edit: Edit) -> set[str]:
        """Let what waits for dead events go on without them. See `retry`."""
        return await self._change(DISCARD, event_ids, "discard", edit, None)

    async def _change(
        self, statement: str, event_ids: Sequence[str], verb: str, edit: Edit, payload: str | None
    ) -> set[str]:
        ids = [UUID(event_id) for event_id in event_ids]
        async with self._database.transaction() as connection:
            await connection.execute(BACK_FROM_ARCHIVE, ids)
            await connection.execute(OUT_OF_ARCHIVE, ids)
            rows = await connection.fetch(statement, ids, verb, edit.by, edit.reason, payload)
            await connection.execute(HINT)
        return {str(row["id"]) for row in rows}
