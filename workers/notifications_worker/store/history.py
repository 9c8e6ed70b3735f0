"""Deliveries after their sending: what providers say later, and how long all of it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

# How far a message has come, by what its provider says: word that is late or comes twice changes nothing.
LATER = """
UPDATE notification_delivery
   SET state = $3, code = coalesce($4, code), changed_at = clock_timestamp()
 WHERE provider = $1 AND provider_message_id = $2 AND state = 'accepted' AND $3 IN ('delivered', 'undelivered')
RETURNING tenant_id, notification_id, channel, recipient
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

    async def said_later(self, provider: str, provider_message_id: str, state: str, code: str | None) -> bool:
        """Note that a message was `delivered` or `undelivered`; false when that is known, or of no message of ours."""
        async with self._database.connected() as connection:
            return await connection.fetchrow(LATER, provider, provider_message_id, state, code) is not None

    async def forget(self, days: int, limit: int) -> int:
        """Delete at most `limit` deliveries that ended longer than `days` ago; return how many."""
        async with self._database.connected() as connection:
            return int(await connection.fetchval(FORGET, days, limit))
