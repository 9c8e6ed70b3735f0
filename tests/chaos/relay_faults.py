"""What goes wrong with the relay and its queue beside what goes wrong with everybody.

Told as `gone` and `back` (Redis), `forgot` (Redis lost the job of an event), `deposed` (a partition was given to
nobody), `locked` and `unlocked` (somebody sat on rows of pending events).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg
import redis

from chaos.events import QUEUE
from chaos.faults import Storm

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_stack import RedisServer

LUNCH_SECONDS = 3.0
DEPOSE = """
UPDATE domain_event_partition
   SET owner = 'an impostor', token = token + 1, lease_until = clock_timestamp() + interval '3 seconds'
 WHERE partition % 4 = 0
"""
LUNCH = "SELECT id FROM domain_event_outbox WHERE processed_at IS NULL ORDER BY position LIMIT 3 FOR UPDATE SKIP LOCKED"


class RelayStorm(Storm):
    """Over events-workers."""

    # Longer than a job's lock (10 s) and a partition's lease (15 s) live.
    freeze_seconds = (16.0, 20.0)
    application = "events-worker"

    def __init__(self, *arguments: Any, redis_server: RedisServer) -> None:
        super().__init__(*arguments)
        self._redis = redis_server

    def of_its_own(self) -> list[Callable[[], None]]:
        """See `Storm`."""
        return [self.forget, self.depose, self.restart_redis, self.go_to_lunch]

    def restart_redis(self) -> None:
        """Kill it; what it had not written to its file within the last second is lost."""
        self._pen.tell("gone", note="redis")
        self._redis.kill()
        time.sleep(self._chance.uniform(0, 1.5))  # The length of the outage varies.
        self._redis.start()
        self._pen.tell("back", note="redis")

    def forget(self) -> None:
        """Take a job away from Redis, wherever it is."""
        with redis.Redis.from_url(self._redis.url) as server:
            lists = [(part, server.lrange(f"{QUEUE}:{part}", 0, 50)) for part in ("wait", "active")]
            found = [(part, job) for part, jobs in lists for job in jobs]
            if not found:
                return
            part, job = self._chance.choice(found)
            self._pen.tell("forgot", event=job.decode(), note=part)
            with server.pipeline() as together:
                together.lrem(f"{QUEUE}:{part}", 0, job).delete(
                    f"{QUEUE}:{job.decode()}", f"{QUEUE}:{job.decode()}:lock"
                )
                together.execute()

    def depose(self) -> None:
        """Give some partitions to somebody who does nothing with them; their owners do not know."""
        self._pen.tell("deposed")
        self._ask(DEPOSE)

    def go_to_lunch(self) -> None:
        """Lock pending events and be idle in the transaction."""
        self._in_the_background(self._lunch)

    def _lunch(self) -> None:
        with psycopg.connect(self._postgres.url) as connection:
            rows = connection.execute(LUNCH).fetchall()
            self._pen.tell("locked", note=f"{len(rows)} rows")
            time.sleep(LUNCH_SECONDS)  # For this is the fault.
        self._pen.tell("unlocked")
