"""What goes wrong, drawn from a seeded random and told in the history.

Of a process: `killed` (SIGKILL), `stopped` (SIGTERM, and it ended), `frozen` and `thawed`. Of a server, named by the
note: `gone` and `back`. Else: `forgot` (Redis lost the job of an event), `cut off` (the workers' backends were ended),
`deposed` (a partition was given to nobody), `locked` and `unlocked` (somebody sat on rows of pending events).
"""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import redis

from chaos.events import QUEUE

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from chaos.fleet import Fleet
    from chaos.history import Pen
    from embedded_stack import PostgresServer, RedisServer

# Longer than a job's lock (10 s) and a partition's lease (15 s) live.
FREEZE_SECONDS = (16.0, 20.0)
LUNCH_SECONDS = 3.0
CUT_OFF = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE application_name LIKE 'events-worker%' AND datname = current_database()
"""
DEPOSE = """
UPDATE domain_event_partition
   SET owner = 'an impostor', token = token + 1, lease_until = clock_timestamp() + interval '3 seconds'
 WHERE partition % 4 = 0
"""
LUNCH = "SELECT id FROM domain_event_outbox WHERE processed_at IS NULL ORDER BY position LIMIT 3 FOR UPDATE SKIP LOCKED"


class Storm:
    """Brings one fault after another over a fleet and its servers. Every fault is over, or ends by itself in time."""

    def __init__(
        self, fleet: Fleet, postgres: PostgresServer, redis_server: RedisServer, pen: Pen, chance: Random
    ) -> None:
        self._fleet = fleet
        self._postgres = postgres
        self._redis = redis_server
        self._pen = pen
        self._chance = chance
        self._later: list[threading.Thread] = []
        self._bag: list[Callable[[], None]] = []

    def rage(self, seconds: float, pause: tuple[float, float]) -> None:
        """Bring faults for so long and at least one of each kind, with pauses between them."""
        deadline = time.monotonic() + seconds
        self._fill_the_bag()
        while self._bag or time.monotonic() < deadline:
            time.sleep(self._chance.uniform(*pause))  # The moment of a fault is what varies.
            self._next()()
        for thread in self._later:
            thread.join()

    def _next(self) -> Callable[[], None]:
        if not self._bag:
            self._fill_the_bag()
        return self._bag.pop()

    def _fill_the_bag(self) -> None:
        often, seldom = [self.kill, self.kill, self.forget], [self.terminate, self.freeze, self.depose]
        servers = [self.restart_postgres, self.restart_redis, self.cut_off, self.go_to_lunch]
        self._bag = [*often, *seldom, *servers]
        self._chance.shuffle(self._bag)

    def kill(self) -> None:
        """SIGKILL a worker, and have it back soon."""
        worker = self._fleet.pick(self._chance)
        if worker is not None:
            self._fleet.kill(worker)
            self._fleet.restart(worker)

    def terminate(self) -> None:
        """Stop a worker as a deployment does, and start the next."""
        worker = self._fleet.pick(self._chance)
        if worker is not None:
            self._in_the_background(lambda: self._fleet.replace(worker))

    def freeze(self) -> None:
        """Let a worker lose what it holds without knowing, and go on."""
        worker = self._fleet.pick(self._chance)
        if worker is not None:
            seconds = self._chance.uniform(*FREEZE_SECONDS)
            self._in_the_background(lambda: self._fleet.freeze(worker, seconds))

    def restart_postgres(self) -> None:
        """End it fast, at once, or by SIGKILL."""
        how = self._chance.choice((signal.SIGINT, signal.SIGQUIT, signal.SIGKILL))
        self._pen.tell("gone", note=f"postgres {how.name}")
        if how is signal.SIGKILL:
            self._postgres.kill()
        else:
            self._postgres._process.send_signal(how)  # type: ignore[union-attr]
            self._postgres.stop()
        time.sleep(self._chance.uniform(0, 1.5))  # The length of the outage varies.
        self._postgres.start()
        self._pen.tell("back", note="postgres")

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

    def cut_off(self) -> None:
        """End every backend of the workers."""
        self._pen.tell("cut off")
        self._ask(CUT_OFF)

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

    def _ask(self, statement: str) -> None:
        with psycopg.connect(self._postgres.url) as connection:
            connection.execute(statement)

    def _in_the_background(self, fault: Callable[[], None]) -> None:
        def bring() -> None:
            try:
                fault()
            except psycopg.OperationalError:
                # Another fault took the server away meanwhile.
                self._pen.tell("interrupted")

        self._later.append(threading.Thread(target=bring))
        self._later[-1].start()
