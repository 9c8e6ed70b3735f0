"""One run of the chaos: servers, three workers, writers, a storm over all of them, rest, and the verdict."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import psycopg

from chaos.events import TABLES
from chaos.fleet import Fleet
from chaos.history import Pen, read
from chaos.relay_faults import RelayStorm
from chaos.rest import asked, come_to_rest, what_is_left
from chaos.verdict import judge
from chaos.writers import Writer, aggregates
from embedded_stack import postgres_server, redis_server
from worker_ops.migrations import migrate

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.verdict import Verdict
    from embedded_stack import PostgresServer, RedisServer

log = logging.getLogger(__name__)

HISTORY = "history.ndjson"
WORKERS = 3
WRITERS = 8
# Three workers with fifty jobs in flight each may want a connection for every job.
CONNECTIONS = 300
MOST_PENDING = 150
PENDING = "SELECT count(*) FROM domain_event_outbox WHERE processed_at IS NULL"


@dataclass(frozen=True)
class Scene:
    """What a run consists of: `seconds` of faults drawn from `seed`, with pauses of so many seconds between them."""

    seconds: float
    seed: int
    pause: tuple[float, float] = (0.2, 1.8)


def play(scene: Scene, folder: Path) -> Verdict:
    """Run it in an empty folder, where the history and the logs stay; raises what a writer or a server raised."""
    with ExitStack() as opened:
        postgres = opened.enter_context(postgres_server(folder / "postgres"))
        redis = opened.enter_context(redis_server(folder / "redis"))
        pen = opened.enter_context(Pen(folder / HISTORY))
        prepare(postgres)
        fleet = opened.enter_context(Fleet(WORKERS, environment(postgres.url, redis.url, folder), folder, pen))
        rage(scene, fleet, postgres, redis, pen)
        come_to_rest(postgres.url, redis.url)
        fleet.disband()
        remains = what_is_left(postgres.url, redis.url, fleet.surprises)
    return judge(read(folder / HISTORY), remains)


def prepare(postgres: PostgresServer) -> None:
    """Make the schema, the tables of the chaos, and room for all connections."""
    migrate(postgres.url, log.info)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(TABLES)
        connection.cursor().executemany("INSERT INTO aggregate (id) VALUES (%s)", [(name,) for name in aggregates()])
        connection.execute(f"ALTER SYSTEM SET max_connections = {CONNECTIONS}")
    postgres.stop()
    postgres.start()


def environment(database_url: str, redis_url: str, folder: Path) -> dict[str, str]:
    """Return the workers' settings: the defaults, but for quick retries and a full width."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "QUEUE_CONCURRENCY": "50",
        "RETRY_EVENTS_DELAYS_MS": "100,300",
        "EVENT_HANDLERS": "chaos.watched",
        "CHAOS_HISTORY": str(folder / HISTORY),
    }


def rage(scene: Scene, fleet: Fleet, postgres: PostgresServer, redis: RedisServer, pen: Pen) -> None:
    """Let writers write under the storm."""
    chance, brake, over = Random(scene.seed), threading.Event(), threading.Event()
    writers = [Writer(postgres.url, pen, Random(chance.random()), brake) for _ in range(WRITERS)]
    braking = threading.Thread(target=hold_back, args=(postgres.url, brake, over))
    for thread in (*writers, braking):
        thread.start()
    try:
        RelayStorm(fleet, postgres, pen, chance, redis_server=redis).rage(scene.seconds, scene.pause)
    finally:
        over.set()
        for writer in writers:
            writer.enough.set()
        for thread in (*writers, braking):
            thread.join()
    for writer in writers:
        if writer.error:
            raise writer.error


def hold_back(database_url: str, brake: threading.Event, over: threading.Event) -> None:
    """Have the writers pause while enough is pending: what is left at the end has to be worked off."""
    while not over.wait(0.1):
        with suppress(psycopg.OperationalError):
            (pending,) = asked(database_url, PENDING)[0]
            (brake.set if pending > MOST_PENDING else brake.clear)()
