"""The outbox as an operator reads it. All SQL of `intelliflow outbox` that changes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

ONE_EVENT = """
SELECT id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata, status, retry_count, last_error,
       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS created_at,
       to_char(processed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS processed_at,
       to_char(next_retry_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS next_retry_at,
       position, place
  FROM (SELECT *, 'outbox' AS place FROM domain_event_outbox WHERE id = $1
         UNION ALL
        SELECT *, 'archive' FROM domain_event_outbox_archive WHERE id = $1) AS event
 ORDER BY place DESC
 LIMIT 1
"""
RECEIPTS = """
SELECT finished, dead_reason, blocks,
       to_char(claimed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS claimed_at
  FROM domain_event_under_way WHERE event_id = $1
"""
# What an event that is pending waits for: an earlier one of its aggregate that is under way, or that is pending itself.
WAITS_FOR = """
SELECT busy.event_id, CASE WHEN busy.dead_reason IS NULL THEN 'under way' ELSE 'dead letter' END AS standing
  FROM domain_event_under_way AS busy
 WHERE busy.blocks AND busy.aggregate_type = $2 AND busy.aggregate_id = $3 AND busy.event_id <> $1
 UNION ALL
(SELECT id, 'pending'
   FROM domain_event_outbox
  WHERE processed_at IS NULL AND aggregate_type = $2 AND aggregate_id = $3 AND position < $4
  ORDER BY position
  LIMIT 1)
 LIMIT 1
"""
HISTORY = """
SELECT to_char(edited_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS at, verb, edited_by, reason,
       error_before, payload_before
  FROM domain_event_edit WHERE event_id = $1 ORDER BY number
"""
PENDING_BY_TYPE = """
SELECT event_type, count(*) AS pending,
       EXTRACT(epoch FROM clock_timestamp() - min(created_at) FILTER (WHERE isfinite(created_at)))::float8 AS seconds
  FROM domain_event_outbox WHERE processed_at IS NULL GROUP BY event_type ORDER BY pending DESC, event_type
"""
PARTITIONS = """
SELECT partition, CASE WHEN lease_until > clock_timestamp() THEN owner END AS owner, token,
       CASE WHEN isfinite(lease_until) THEN EXTRACT(epoch FROM lease_until - clock_timestamp())::float8 END AS seconds
  FROM domain_event_partition ORDER BY partition
"""
# What comes in is known from the sequence behind `position`, which counts what was rolled back, too.
FLOW = """
SELECT (SELECT count(*) FROM domain_event_outbox WHERE processed_at IS NULL) AS pending,
       coalesce(pg_sequence_last_value(pg_get_serial_sequence('domain_event_outbox', 'position')::regclass), 0)
           AS given,
       EXTRACT(epoch FROM clock_timestamp())::float8 AS now
"""
HELD_UP = """
SELECT coalesce(sum(waiting.events), 0)::bigint AS behind_dead,
       (SELECT count(*) FROM domain_event_outbox WHERE processed_at IS NULL AND next_retry_at > now()) AS put_off
  FROM domain_event_under_way AS busy
 CROSS JOIN LATERAL (
       SELECT count(*) AS events FROM domain_event_outbox AS event
        WHERE event.processed_at IS NULL
          AND event.aggregate_type = busy.aggregate_type AND event.aggregate_id = busy.aggregate_id
          AND event.id <> busy.event_id) AS waiting
 WHERE busy.dead_reason IS NOT NULL AND busy.blocks
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """An event as it stands; times are ISO-8601 in UTC."""

    row: dict[str, Any]
    receipts: dict[str, Any] | None
    waits_for: dict[str, Any] | None
    history: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Flow:
    """Events pending, and positions given out so far, at a moment of the database's clock in seconds."""

    pending: int
    given: int
    now: float


class OutboxView:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def event(self, event_id: str) -> Seen | None:
        """Return all that is known of an event or, by its id, of a replay; `None` when that is nothing."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(ONE_EVENT, UUID(event_id))
            history = await connection.fetch(HISTORY, UUID(event_id))
            if row is None:
                return Seen({}, None, None, _edits(history)) if history else None
            receipts = await connection.fetchrow(RECEIPTS, row["id"])
            place = (row["id"], row["aggregate_type"], row["aggregate_id"], row["position"])
            waits = await connection.fetchrow(WAITS_FOR, *place) if row["status"] == "pending" else None
        return Seen(
            _parsed(dict(row)), dict(receipts) if receipts else None, dict(waits) if waits else None, _edits(history)
        )

    async def pending_by_type(self) -> list[dict[str, Any]]:
        """Count what is pending, by event type."""
        async with self._database.connected() as connection:
            return [dict(row) for row in await connection.fetch(PENDING_BY_TYPE)]

    async def partitions(self) -> list[dict[str, Any]]:
        """Return who owns which partition, for how many seconds more."""
        async with self._database.connected() as connection:
            return [dict(row) for row in await connection.fetch(PARTITIONS)]

    async def flow(self) -> Flow:
        """Look at how much is pending and has come in."""
        async with self._database.connected() as connection:
            return Flow(**dict(await connection.fetchrow(FLOW)))

    async def held_up(self) -> tuple[int, int]:
        """Count pending events behind a dead letter of their aggregate, and those put off to a later time."""
        async with self._database.connected() as connection:
            row = await connection.fetchrow(HELD_UP)
        return row["behind_dead"], row["put_off"]


def _edits(rows: list[Any]) -> list[dict[str, Any]]:
    return [_parsed(dict(row)) for row in rows]


def _parsed(row: dict[str, Any]) -> dict[str, Any]:
    """Read the columns that asyncpg leaves as JSON text."""
    texts = {name: row[name] for name in ("payload", "metadata", "payload_before") if isinstance(row.get(name), str)}
    return row | {name: json.loads(text) for name, text in texts.items()}
