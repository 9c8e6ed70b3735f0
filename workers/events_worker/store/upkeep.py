"""What keeps the outbox small and its lag known. Each sweep is one short transaction, whatever the rows are like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

# A sweep ends at this many rows or at this many bytes of them as they are stored, whichever comes first: what is moved
# is compressed again, and four megabytes took half a second on a busy machine, where 500 small rows took 60 ms.
SWEEP_ROWS = 500
SWEEP_BYTES = 1_000_000
# How the error of a dead letter begins that somebody has dealt with.
DISCARDED = "DISCARDED"

# What somebody discarded is no dead letter any more. PostgreSQL knows times without a distance: infinity.
LAG = f"""
SELECT (SELECT count(*) FROM domain_event_outbox WHERE processed_at IS NULL) AS pending,
       (SELECT CASE WHEN isfinite(created_at) THEN EXTRACT(epoch FROM clock_timestamp() - created_at)::float8 END
          FROM domain_event_outbox
         WHERE processed_at IS NULL
         ORDER BY position
         LIMIT 1) AS seconds,
       (SELECT count(*) FROM domain_event_under_way WHERE dead_reason IS NULL) AS under_way,
       (SELECT count(*) FROM domain_event_under_way WHERE dead_reason IS NOT NULL AND blocks) AS blocked,
       (SELECT count(*) FROM domain_event_outbox
         WHERE status = 'dead_letter' AND coalesce(last_error, '') NOT LIKE '{DISCARDED}:%')
     + (SELECT count(*) FROM domain_event_outbox_archive
         WHERE status = 'dead_letter' AND coalesce(last_error, '') NOT LIKE '{DISCARDED}:%') AS dead
"""

# The size of what is stored elsewhere is known without reading it.
BYTES = "pg_column_size(event.payload) + pg_column_size(event.metadata)"
FITTING = """
fitting AS (
    SELECT place FROM (SELECT place, sum(bytes) OVER (ORDER BY number) - bytes AS before FROM due) AS counted
     WHERE before < $3
)
"""
SWEPT = "SELECT (SELECT count(*) FROM gone) AS rows, (SELECT count(*) FROM due) AS due"

# The table's own trigger writes what is deleted to the archive. What is under way, or holds up its aggregate, stays;
# the receipts of a dead letter stay, too: it can be retried from the archive.
ARCHIVE = f"""
WITH due AS MATERIALIZED (
    SELECT place, bytes, row_number() OVER (ORDER BY processed_at) AS number
      FROM (SELECT event.ctid AS place, event.processed_at, {BYTES} AS bytes
              FROM domain_event_outbox AS event
             WHERE processed_at < now() - make_interval(days => $1)
               AND NOT EXISTS (SELECT FROM domain_event_under_way AS busy
                                WHERE busy.event_id = event.id AND busy.blocks)
             ORDER BY processed_at
             LIMIT $2
               FOR UPDATE SKIP LOCKED) AS locked
), {FITTING}, gone AS (
    DELETE FROM domain_event_outbox WHERE ctid = ANY (ARRAY(SELECT place FROM fitting)) RETURNING id
)
{SWEPT}
"""

# With an event go its receipts and its history, unless somebody put it back into the outbox.
PURGE = f"""
WITH due AS MATERIALIZED (
    SELECT place, bytes, row_number() OVER (ORDER BY created_at) AS number
      FROM (SELECT event.ctid AS place, event.created_at, {BYTES} AS bytes
              FROM domain_event_outbox_archive AS event
             WHERE created_at < now() - make_interval(days => $1)
               AND NOT EXISTS (SELECT FROM domain_event_under_way AS busy
                                WHERE busy.event_id = event.id AND busy.blocks)
             ORDER BY created_at
             LIMIT $2
               FOR UPDATE SKIP LOCKED) AS locked
), {FITTING}, gone AS (
    DELETE FROM domain_event_outbox_archive WHERE ctid = ANY (ARRAY(SELECT place FROM fitting)) RETURNING id
), forgotten AS (
    SELECT id FROM gone WHERE NOT EXISTS (SELECT FROM domain_event_outbox AS event WHERE event.id = gone.id)
), receipts AS (
    DELETE FROM domain_event_under_way AS dead USING forgotten WHERE dead.event_id = forgotten.id
), history AS (
    DELETE FROM domain_event_edit AS edit USING forgotten WHERE edit.event_id = forgotten.id
)
{SWEPT}
"""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far behind the writers we are.

    `pending` events are committed and not yet published, the oldest for `seconds`; `under_way` are published and not
    yet handled; `blocked` aggregates wait for a person to retry or discard a dead letter; `dead` letters are there in
    all that nobody has retried or discarded, archived ones included.
    """

    pending: int
    seconds: float
    under_way: int
    blocked: int
    dead: int


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did, and whether there is more to do."""

    rows: int
    more: bool


class UpkeepStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lag(self) -> Lag:
        """Measure how far the relay is behind the writers, and the handlers behind the relay."""
        async with self._database.connected() as connection:
            row = await connection.fetchrow(LAG)
        seconds = max(0.0, row["seconds"] or 0.0)
        return Lag(row["pending"], seconds, row["under_way"], row["blocked"], row["dead"])

    async def archive(self, older_than_days: int) -> Swept:
        """Move finished rows to the archive, those finished longest ago first."""
        return await self._sweep(ARCHIVE, older_than_days)

    async def purge(self, older_than_days: int) -> Swept:
        """Delete archived events for good that were committed that long ago, the oldest first."""
        return await self._sweep(PURGE, older_than_days)

    async def _sweep(self, statement: str, days: int) -> Swept:
        async with self._database.connected() as connection:
            row = await connection.fetchrow(statement, days, SWEEP_ROWS, SWEEP_BYTES)
        return Swept(row["rows"], row["rows"] < row["due"] or row["rows"] == SWEEP_ROWS)
