"""One run of the chaos with workflows: servers, three workers, starters, a storm over all of them, and the verdict."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import psycopg

from chaos.fleet import Fleet
from chaos.history import Pen, read
from chaos.rest import asked
from chaos.workflows.audit import AUDIT
from chaos.workflows.ground import SETTINGS
from chaos.workflows.plans import NO_LEAST_LEASE, settle_in
from chaos.workflows.receiver import receiver
from chaos.workflows.rest import come_to_rest, what_is_left
from chaos.workflows.starters import Starter
from chaos.workflows.storm import WorkflowStorm
from chaos.workflows.verdict import judge
from embedded_stack import postgres_server, redis_server
from worker_ops.migrations import migrate

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.verdict import Verdict
    from chaos.workflows.receiver import Receiver
    from embedded_stack import PostgresServer

log = logging.getLogger(__name__)

HISTORY = "history.ndjson"
WORKERS = 3
STARTERS = 2
ORGANIZATIONS = 50
MOST_UNDER_WAY = 150
LEAST_LEASE_SECONDS = 30
UNDER_WAY = """
SELECT count(*) FROM fw_workflow_executions WHERE status IN ('queued', 'running', 'waiting', 'retry_pending')
"""
# Of the longest chain of leases that end one after the other, and of the sweeper.
REST_LEASES = 6


@dataclass(frozen=True)
class Scene:
    """What a run consists of: `seconds` of faults drawn from `seed`; leases of thirty seconds or, to see more, less."""

    seconds: float
    seed: int
    lease_seconds: int = 30
    pause: tuple[float, float] = (0.2, 1.2)


def play(scene: Scene, folder: Path) -> Verdict:
    """Run it in an empty folder, where the history and the logs stay; raises what a starter or a server raised."""
    chance = Random(scene.seed)
    with ExitStack() as opened:
        postgres = opened.enter_context(postgres_server(folder / "postgres"))
        redis = opened.enter_context(redis_server(folder / "redis"))
        pen = opened.enter_context(Pen(folder / HISTORY))
        asked_one = opened.enter_context(receiver(pen, Random(chance.random())))
        prepare(postgres, scene)
        settings = environment(postgres.url, redis.url, folder)
        fleet = opened.enter_context(Fleet(WORKERS, settings, folder, pen, "workflow_worker"))
        rage(scene, fleet, postgres, asked_one, pen, chance)
        come_to_rest(postgres.url, 60.0 + scene.lease_seconds * REST_LEASES)
        fleet.disband()
        remains = what_is_left(postgres.url, redis.url, fleet.surprises)
    return judge(read(folder / HISTORY), remains)


def prepare(postgres: PostgresServer, scene: Scene) -> None:
    """Make the schema, the audit, the organisations and their rules."""
    migrate(postgres.url, log.info)
    with psycopg.connect(postgres.url) as connection:
        connection.execute(AUDIT)
        if scene.lease_seconds < LEAST_LEASE_SECONDS:
            connection.execute(NO_LEAST_LEASE)
        settle_in(connection, [f"org-{number}" for number in range(ORGANIZATIONS)], scene.lease_seconds)


def environment(database_url: str, redis_url: str, folder: Path) -> dict[str, str]:
    """Return the workers' settings."""
    own = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "CHAOS_HISTORY": str(folder / HISTORY)}
    return {**SETTINGS, **own, "CHAOS_HASTE": "1"}


def rage(scene: Scene, fleet: Fleet, postgres: PostgresServer, asked_one: Receiver, pen: Pen, chance: Random) -> None:
    """Let executions be started under the storm."""
    brake, over = threading.Event(), threading.Event()
    starters = [
        Starter(postgres.url, asked_one.url, ORGANIZATIONS, pen, Random(chance.random()), brake)
        for _ in range(STARTERS)
    ]
    braking = threading.Thread(target=hold_back, args=(postgres.url, brake, over))
    for thread in (*starters, braking):
        thread.start()
    try:
        storm = WorkflowStorm(fleet, postgres, pen, chance, lease_seconds=scene.lease_seconds)
        storm.rage(scene.seconds, scene.pause)
    finally:
        over.set()
        for starter in starters:
            starter.enough.set()
        for thread in (*starters, braking):
            thread.join()
    for starter in starters:
        if starter.error:
            raise starter.error


def hold_back(database_url: str, brake: threading.Event, over: threading.Event) -> None:
    """Have the starters pause while enough is under way: what is left at the end has to be worked off."""
    while not over.wait(0.1):
        with suppress(psycopg.OperationalError):
            (under_way,) = asked(database_url, UNDER_WAY)[0]
            (brake.set if under_way > MOST_UNDER_WAY else brake.clear)()
