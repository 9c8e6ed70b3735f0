"""Deliveries as an operator sees them: find, show, and make one be sent again. All SQL of `intelliflow deliveries`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from worker_runtime.postgres import Database

# $1 to $8 are a `Selection`.
CHOSEN = """
  FROM notification_delivery AS delivery
 WHERE ($1::text[] IS NULL OR notification_id = ANY ($1))
   AND ($2::text IS NULL OR state = $2)
   AND ($3::text IS NULL OR channel = $3)
   AND ($4::text IS NULL OR tenant_id = $4)
   AND ($5::text IS NULL OR code = $5)
   AND ($6::timestamptz IS NULL OR changed_at < $6)
   AND ($7::timestamptz IS NULL OR changed_at >= $7)
   AND ($8::text IS NULL OR lower(recipient) = lower($8))
"""
COUNT = f"SELECT count(*) {CHOSEN}"
NEWEST = f"SELECT * {CHOSEN} ORDER BY changed_at DESC LIMIT $9"
# The first condition is there for its index: the second has none.
PAGE = f"""
SELECT * {CHOSEN}
   AND changed_at >= coalesce($9::timestamptz, '-infinity')
   AND ($9::timestamptz IS NULL
        OR (changed_at, tenant_id, notification_id, channel) > ($9, $10::text, $11::text, $12::text))
 ORDER BY changed_at, tenant_id, notification_id, channel
 LIMIT $13
"""
GROUPS = f"""
SELECT channel, state, code, count(*) AS count, min(changed_at) AS oldest, max(changed_at) AS newest,
       min(notification_id) AS example
{CHOSEN}
 GROUP BY channel, state, code ORDER BY count DESC, channel, state, code
"""
ATTEMPTS = """
SELECT * FROM notification_attempt
 WHERE (tenant_id, notification_id, channel) = ($1, $2, $3) ORDER BY id
"""
EDITS = """
SELECT * FROM notification_edit
 WHERE (tenant_id, notification_id, channel) = ($1, $2, $3) ORDER BY number
"""
# Whoever looks from now on finds it free: neither accepted nor in doubt. Its attempts stay what they were.
AGAIN = """
WITH asked AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[])
                  AS asked (tenant_id, notification_id, channel, seen_at, new_job)
), before AS MATERIALIZED (
    SELECT tenant_id, notification_id, channel, state, new_job
      FROM notification_delivery AS delivery JOIN asked USING (tenant_id, notification_id, channel)
     WHERE delivery.changed_at = asked.seen_at
       AND NOT (delivery.state = 'sending' AND delivery.lease_until > clock_timestamp())
     ORDER BY tenant_id, notification_id, channel
       FOR UPDATE OF delivery
), again AS (
    UPDATE notification_delivery AS delivery
       SET job = before.new_job, state = 'waiting', accepted_at = NULL, doubtful_since = NULL, lease_until = NULL,
           code = NULL, reason = NULL, changed_at = clock_timestamp()
      FROM before
     WHERE (delivery.tenant_id, delivery.notification_id, delivery.channel)
           = (before.tenant_id, before.notification_id, before.channel)
), history AS (
    INSERT INTO notification_edit (verb, tenant_id, notification_id, channel, edited_by, reason, state_before)
    SELECT 'replay', tenant_id, notification_id, channel, $6, $7, state FROM before
)
SELECT tenant_id, notification_id, channel FROM before
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which deliveries. `None` asks for nothing; times are those of the last change."""

    notifications: Sequence[str] | None = None
    state: str | None = None
    channel: str | None = None
    tenant: str | None = None
    code: str | None = None
    changed_before: datetime | None = None
    changed_after: datetime | None = None
    recipient: str | None = None

    @property
    def arguments(self) -> tuple[object, ...]:
        """The parameters of `CHOSEN`."""
        ids = None if self.notifications is None else list(self.notifications)
        chosen = (self.state, self.channel, self.tenant, self.code)
        return (ids, *chosen, self.changed_before, self.changed_after, self.recipient)


Key = tuple[str, str, str]


def key_of(row: Any) -> Key:
    """Return what names a delivery: tenant, notification, channel."""
    return row["tenant_id"], row["notification_id"], row["channel"]


class DeliveriesStore:
    """Every method raises `DatabaseUnavailable` for what time may cure. Rows have the names of their columns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self) -> datetime:
        """Return the database's time, by which deliveries change."""
        async with self._database.connected() as connection:
            moment: datetime = await connection.fetchval("SELECT clock_timestamp()")
        return moment

    async def count(self, selection: Selection) -> int:
        """Count what is selected."""
        async with self._database.connected() as connection:
            return int(await connection.fetchval(COUNT, *selection.arguments))

    async def groups(self, selection: Selection) -> list[Any]:
        """Count what is selected by channel, state and code."""
        async with self._database.connected() as connection:
            return list(await connection.fetch(GROUPS, *selection.arguments))

    async def newest(self, selection: Selection, limit: int) -> list[Any]:
        """Return what is selected, what changed last in front."""
        async with self._database.connected() as connection:
            return list(await connection.fetch(NEWEST, *selection.arguments, limit))

    async def page(self, selection: Selection, limit: int, after: Any = None) -> list[Any]:
        """Return what is selected, what changed first in front, from behind the row `after`."""
        place = (None,) * 4 if after is None else (after["changed_at"], *key_of(after))
        async with self._database.connected() as connection:
            return list(await connection.fetch(PAGE, *selection.arguments, *place, limit))

    async def attempts(self, key: Key) -> list[Any]:
        """Return every call to a provider, in order."""
        async with self._database.connected() as connection:
            return list(await connection.fetch(ATTEMPTS, *key))

    async def edits(self, key: Key) -> list[Any]:
        """Return what people did to it, in order."""
        async with self._database.connected() as connection:
            return list(await connection.fetch(EDITS, *key))

    async def again(self, jobs: Sequence[tuple[Any, str]], by: str, reason: str) -> set[Key]:
        """Let deliveries, as they were seen, be sent once more, each by that new job; return those that may be."""
        rows = [row for row, _ in jobs]
        keys = [list(column) for column in zip(*map(key_of, rows), strict=True)]
        asked = (*keys, [row["changed_at"] for row in rows], [job for _, job in jobs])
        async with self._database.connected() as connection:
            return {key_of(row) for row in await connection.fetch(AGAIN, *asked, by, reason)}
