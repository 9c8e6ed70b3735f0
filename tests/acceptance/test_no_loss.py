"""Events committed while workers are killed and servers restarted: counted by what a mail server accepted."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from worker_suite import wait_for

if TYPE_CHECKING:
    from embedded_stack import PostgresServer, RedisServer
    from worker_suite import Suite


@pytest.mark.timeout(240)
def test_two_thousand_events_survive_random_kills_of_both_workers(suite: Suite) -> None:
    chance = random.Random(20261122)
    workers = [suite.events_worker(), suite.notifications_worker()]
    for worker in workers:
        worker.ready()
    kills = 0
    for _ in range(20):
        suite.commit_leads(100)
        time.sleep(chance.uniform(0, 0.5))  # The moment of the kill is what varies.
        if chance.random() < 0.6:
            victim = chance.choice(workers)
            victim.kill()
            victim.restart()
            kills += 1
    suite.wait_for_mails(2_000, within=60)
    wait_for(lambda: unfinished(suite) == 0, within=40, what="an empty queue")
    repeats = [count for count in Counter(suite.notification_ids()).values() if count > 1]
    assert kills >= 8
    # Only what fell between the server's 250 and its record may come twice: at most a job per slot and kill.
    assert sum(count - 1 for count in repeats) <= 20
    assert suite.redis().zcard("intelliflow:events:failed") == 0
    assert suite.redis().zcard("intelliflow:notifications:email:failed") == 0


def unfinished(suite: Suite) -> int:
    connection = suite.redis()
    queues = ("intelliflow:events", "intelliflow:notifications:email")
    lists = sum(int(connection.llen(f"{queue}:{part}")) for queue in queues for part in ("wait", "active"))
    return lists + sum(int(connection.zcard(f"{queue}:delayed")) for queue in queues)


@pytest.mark.timeout(180)
def test_redis_and_postgres_killed_under_load_lose_nothing(
    own_suite: Suite, own_redis: RedisServer, own_postgres: PostgresServer
) -> None:
    events, notifications = own_suite.events_worker().ready(), own_suite.notifications_worker().ready()
    own_suite.commit_leads(300)
    own_suite.wait_for_mails(50, within=30)
    own_redis.kill()
    wait_for(lambda: events.status("/health/ready") == notifications.status("/health/ready") == 503, 6)
    assert events.status("/health/live") == notifications.status("/health/live") == 200
    wait_for(lambda: events.metric("intelliflow_redis_errors_total") > 0, 2)
    own_redis.start()
    back = time.monotonic()
    own_suite.wait_for_mails(60, within=20)
    assert time.monotonic() - back < 15  # Generous for a busy machine.
    own_postgres.kill()
    wait_for(lambda: events.status("/health/ready") == 503, 6)
    assert events.status("/health/live") == 200
    own_postgres.start()
    own_suite.commit_leads(100)
    own_suite.wait_for_mails(400, within=60)
    wait_for(lambda: events.status("/health/ready") == notifications.status("/health/ready") == 200, 10)
    assert events.stop() == notifications.stop() == 143


@pytest.mark.timeout(90)
def test_a_job_of_a_killed_worker_runs_again_within_fifteen_seconds(suite: Suite) -> None:
    """The mail server hangs, so that the kill surely falls into a job."""
    suite.events_worker().ready()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hung = suite.notifications_worker(SMTP_PORT=str(silent.getsockname()[1])).ready()
        suite.commit_leads(1)
        wait_for(lambda: suite.redis().llen("intelliflow:notifications:email:active") == 1, 10)
        hung.kill()
        killed = time.monotonic()
        suite.notifications_worker().ready()
        suite.wait_for_mails(1, within=20)
    assert time.monotonic() - killed < 15
