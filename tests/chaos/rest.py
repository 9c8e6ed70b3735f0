"""When nothing is left to be done, and what is left then."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import redis

from chaos.events import QUEUE
from chaos.verdict import Left, Remains
from worker_suite import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

# A killed worker's jobs are found within 15 s, lost ones within 20 s, and a job may meet two such ends.
REST_SECONDS = 90.0
# Pending, and not because of a dead letter that blocks; or under way.
RESTLESS = """
SELECT (SELECT count(*)
          FROM domain_event_outbox AS event
         WHERE processed_at IS NULL
           AND NOT EXISTS (SELECT FROM domain_event_under_way AS busy
                            WHERE busy.dead_reason IS NOT NULL AND busy.blocks
                              AND busy.aggregate_id = event.aggregate_id))
     + (SELECT count(*) FROM domain_event_under_way WHERE dead_reason IS NULL)
"""
LEFT = """
SELECT event.id::text, event.aggregate_id, event.position, event.status, event.processed_at IS NULL,
       CASE WHEN busy.event_id IS NULL THEN '' WHEN busy.dead_reason IS NULL THEN 'under way' ELSE 'dead' END,
       coalesce(busy.blocks, false), coalesce(event.last_error, '')
  FROM domain_event_outbox AS event LEFT JOIN domain_event_under_way AS busy ON busy.event_id = event.id
"""
LINES = "SELECT event::text, aggregate, version FROM ledger ORDER BY line"
OWNERSHIP = "SELECT partition, old_owner, new_owner, old_token, new_token, expired FROM ownership ORDER BY line"


def come_to_rest(database_url: str, redis_url: str, within: float = REST_SECONDS) -> None:
    """Wait until nothing is left to be done; what never comes to rest, the verdict shows."""
    with suppress(TimeoutError):
        wait_for(lambda: is_at_rest(database_url, redis_url), within, every=0.1)


def is_at_rest(database_url: str, redis_url: str) -> bool:
    """Tell whether nothing is pending, under way or in the queue."""
    return asked(database_url, RESTLESS) == [(0,)] and not unfinished_jobs(redis_url)


def unfinished_jobs(redis_url: str) -> int:
    """Count the jobs that wait, run or are put off."""
    with redis.Redis.from_url(redis_url) as server:
        lists = sum(int(server.llen(f"{QUEUE}:{part}")) for part in ("wait", "active", "paused"))
        return lists + sum(int(server.zcard(f"{QUEUE}:{part}")) for part in ("delayed", "prioritized"))


def what_is_left(database_url: str, redis_url: str, surprises: Sequence[str] = ()) -> Remains:
    """Collect what the verdict asks of the servers."""
    with redis.Redis.from_url(redis_url) as server:
        failed = frozenset(job.decode() for job in server.zrange(f"{QUEUE}:failed", 0, -1))
    return Remains(
        events=[Left(*row) for row in asked(database_url, LEFT)],
        ledger=asked(database_url, LINES),
        ownership=asked(database_url, OWNERSHIP),
        unfinished_jobs=unfinished_jobs(redis_url),
        failed_jobs=failed,
        surprises=surprises,
    )


def asked(database_url: str, question: str) -> list[tuple[Any, ...]]:
    """Return the rows that answer it."""
    with psycopg.connect(database_url) as connection:
        return connection.execute(question).fetchall()
