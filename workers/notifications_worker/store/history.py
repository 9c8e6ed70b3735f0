"""Deliveries after their sending: what providers say later, and how long all of it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_runtime.postgres import storable

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

# How far a message has come, by what its provider says: word that is late or comes twice changes nothing.
LATER = """
WITH known AS (
    SELECT tenant_id, notification_id, channel
      FROM notification_delivery
     WHERE provider = $1 AND provider_message_id = $2
), news AS (
    UPDATE notification_delivery AS delivery
       SET state = $3, code = coalesce($4, code), changed_at = clock_timestamp()
      FROM known
     WHERE (delivery.tenant_id, delivery.notification_id, delivery.channel)
           = (known.tenant_id, known.notification_id, known.channel)
       AND delivery.state = 'accepted'
    RETURNING 1
)
SELECT EXISTS (SELECT FROM known) AS known, EXISTS (SELECT FROM news) AS news
"""
# An ended delivery is what keeps a second job with its notification from being sent: not before its time.
FORGET = """
WITH old AS (
    SELECT tenant_id, notification_id, channel
      FROM notification_delivery
     WHERE changed_at < clock_timestamp() - make_interval(days => $1) AND state NOT IN ('sending', 'waiting')
     ORDER BY changed_at
     LIMIT $2
), attempts AS (
    DELETE FROM notification_attempt USING old
     WHERE (notification_attempt.tenant_id, notification_attempt.notification_id, notification_attempt.channel)
           = (old.tenant_id, old.notification_id, old.channel)
), edits AS (
    DELETE FROM notification_edit USING old
     WHERE (notification_edit.tenant_id, notification_edit.notification_id, notification_edit.channel)
           = (old.tenant_id, old.notification_id, old.channel)
), gone AS (
    DELETE FROM notification_delivery USING old
     WHERE (notification_delivery.tenant_id, notification_delivery.notification_id, notification_delivery.channel)
           = (old.tenant_id, old.notification_id, old.channel)
    RETURNING 1
)
SELECT count(*) FROM gone
"""


class HistoryStore:
    """Raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def said_later(self, provider: str, provider_message_id: str, state: str, code: str | None) -> bool | None:
        """Note that a message was `delivered` or `undelivered`: whether that is news, or None of no message of ours."""
        told = (provider, storable(provider_message_id), state, None if code is None else storable(code))
        async with self._database.connected() as connection:
            row = await connection.fetchrow(LATER, *told)
        return bool(row["news"]) if row["known"] else None

    async def forget(self, days: int, limit: int) -> int:
        """Delete at most `limit` deliveries that ended longer than `days` ago; return how many."""
        async with self._database.connected() as connection:
            return int(await connection.fetchval(FORGET, days, limit))
