"""What the doctor asks PostgreSQL about the outbox. Cheap on any size: catalogues, statistics and short indexes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingestion_worker.problem import UNLUCKY
from notifications_worker.store.endpoints import GONE, ONLY_FAILURES

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

TABLES = """
SELECT unnest(ARRAY['domain_event_outbox', 'domain_event_outbox_archive', 'domain_event_under_way',
                    'domain_event_edit', 'domain_event_partition']::regclass[]) AS relation
"""
# reltuples is what the last vacuum or analyze counted; -1: never.
INDEXES = f"""
SELECT c.relname AS name, i.indisvalid AND i.indisready AS valid, pg_relation_size(c.oid) AS bytes,
       greatest(c.reltuples, 0)::bigint AS entries
  FROM ({TABLES}) AS ours JOIN pg_index AS i ON i.indrelid = ours.relation JOIN pg_class AS c ON c.oid = i.indexrelid
 ORDER BY c.relname
"""
VACUUM = f"""
SELECT s.relname AS name, n_live_tup AS live, n_dead_tup AS dead,
       EXTRACT(epoch FROM clock_timestamp() - greatest(last_vacuum, last_autovacuum))::float8 AS seconds
  FROM ({TABLES}) AS ours JOIN pg_stat_all_tables AS s ON s.relid = ours.relation
 ORDER BY s.relname
"""
# Only transactions of this database keep rows of its tables alive; prepared ones have no process.
OLDEST_TRANSACTION = """
SELECT holder, seconds, state
  FROM (SELECT format('pid %s (%s, %s)', pid, usename, coalesce(nullif(application_name, ''), 'unnamed')) AS holder,
               EXTRACT(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds, state
          FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
           AND backend_type = 'client backend'
         UNION ALL
        SELECT format('prepared transaction %s (%s)', gid, owner),
               EXTRACT(epoch FROM clock_timestamp() - prepared)::float8, 'prepared'
          FROM pg_prepared_xacts
         WHERE database = current_database()) AS open
 ORDER BY seconds DESC
 LIMIT 1
"""
UNDER_WAY = """
SELECT count(*) FILTER (WHERE dead_reason IS NULL AND claimed_at < clock_timestamp() - make_interval(secs => $1))
           AS long,
       (SELECT event_id FROM domain_event_under_way WHERE dead_reason IS NULL ORDER BY claimed_at LIMIT 1) AS example,
       count(*) FILTER (WHERE dead_reason IS NOT NULL AND blocks) AS blocked,
       (SELECT event_id FROM domain_event_under_way WHERE dead_reason IS NOT NULL AND blocks LIMIT 1) AS blocking
  FROM domain_event_under_way
"""
OWNERLESS = """
SELECT count(*) AS partitions, count(*) FILTER (WHERE lease_until < clock_timestamp()) AS ownerless,
       (SELECT count(*) FROM domain_event_relay WHERE seen_until > clock_timestamp()) AS relays
  FROM domain_event_partition
"""
ARCHIVE = """
SELECT pg_total_relation_size('domain_event_outbox_archive') AS bytes,
       greatest(reltuples, 0)::bigint AS events
  FROM pg_class WHERE oid = 'domain_event_outbox_archive'::regclass
"""
# Endpoints that nobody switched off: they were gone, or failed for days.
DISABLED = """
SELECT count(*) AS endpoints, (array_agg(id ORDER BY disabled_at DESC))[1]::text AS example
  FROM tenant_webhook_endpoint
 WHERE NOT active AND disabled_because = ANY ($1::text[])
"""
# A sender that died while it sent, and no job that has come back since.
STUCK = """
SELECT count(*) AS deliveries, min(notification_id) AS example
  FROM notification_delivery
 WHERE state = 'sending' AND lease_until < clock_timestamp() - make_interval(secs => $1)
"""
# Begun, or waiting for OCR, for that long; and those of the last day that killed the process which read them.
DOCUMENTS = """
SELECT count(*) FILTER (WHERE late) AS late, min(document_id) FILTER (WHERE late) AS example,
       count(*) FILTER (WHERE NOT late) AS lethal
  FROM (SELECT document_id, state <> 'failed' AS late
          FROM document
         WHERE (state IN ('reading', 'awaiting_ocr') AND changed_at < clock_timestamp() - make_interval(secs => $1))
            OR (state = 'failed' AND problem = ANY ($2::text[]) AND changed_at > clock_timestamp() - interval '1 day'))
       AS seen
"""
CLOCK = "SELECT EXTRACT(epoch FROM clock_timestamp())::float8"


@dataclass(frozen=True, slots=True)
class Index:
    """An index of one of our tables: `bytes` on disk for `entries` at the last count."""

    name: str
    valid: bool
    bytes: int
    entries: int


@dataclass(frozen=True, slots=True)
class Vacuum:
    """Dead rows of a table, and the seconds since they were last cleaned away; `None`: never."""

    name: str
    live: int
    dead: int
    seconds: float | None


class DoctorStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def indexes(self) -> list[Index]:
        """Return the indexes of the outbox's tables."""
        return [Index(**row) for row in await self._rows(INDEXES)]

    async def vacuums(self) -> list[Vacuum]:
        """Return how dead rows are cleaned from the outbox's tables."""
        return [Vacuum(**row) for row in await self._rows(VACUUM)]

    async def oldest_transaction(self) -> dict[str, Any] | None:
        """Return who has had a transaction open the longest: `holder`, `seconds`, `state`."""
        rows = await self._rows(OLDEST_TRANSACTION)
        return rows[0] if rows else None

    async def under_way(self, long_seconds: float) -> dict[str, Any]:
        """Count events under way for longer than that, and dead ones that hold up their aggregate."""
        return (await self._rows(UNDER_WAY, long_seconds))[0]

    async def ownerless(self) -> dict[str, Any]:
        """Count `partitions`, the `ownerless` among them, and the `relays` that live."""
        return (await self._rows(OWNERLESS))[0]

    async def archive(self) -> dict[str, Any]:
        """Return the archive's `bytes` on disk and about how many `events` it holds."""
        return (await self._rows(ARCHIVE))[0]

    async def disabled(self) -> dict[str, Any]:
        """Count `endpoints` that disabled themselves; `example` is the newest."""
        return (await self._rows(DISABLED, [GONE, ONLY_FAILURES]))[0]

    async def stuck(self, seconds: float) -> dict[str, Any]:
        """Count `deliveries` whose sender died that long ago, and that nobody has taken up."""
        return (await self._rows(STUCK, seconds))[0]

    async def documents(self, seconds: float) -> dict[str, Any]:
        """Count those that are `late` (`example` is one) and those that were `lethal` to whoever read them."""
        return (await self._rows(DOCUMENTS, seconds, sorted(UNLUCKY)))[0]

    async def clock(self) -> float:
        """Return the database's time in seconds since the epoch."""
        async with self._database.connected() as connection:
            return float(await connection.fetchval(CLOCK))

    async def _rows(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        async with self._database.connected() as connection:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
