"""How the shipped workers start, refuse to start, and stop: their exit codes and the lines that explain them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from worker_suite import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedded_stack import PostgresServer, RedisServer
    from worker_suite import Suite

PACKAGES = ("events_worker", "notifications_worker")
EMAIL = "intelliflow:notifications:email"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_bad_setting_stops_the_start_with_every_mistake_named(suite: Suite, package: str) -> None:
    process = suite.start(package, SHUTDOWN_TIMEOUT_MS="soon", LOG_LEVEL="loud", QUEUE_CONCURRENCY="0")
    assert process.popen.wait(20) == 1
    log = process.log.read_text()
    assert all(name in log for name in ("SHUTDOWN_TIMEOUT_MS", "LOG_LEVEL", "QUEUE_CONCURRENCY"))


@pytest.mark.parametrize("package", PACKAGES)
def test_check_connects_to_nothing_and_says_whether_the_settings_are_good(package: str) -> None:
    environment = {"REDIS_URL": "redis://127.0.0.1:1/0", "DATABASE_URL": "postgresql://u:p@127.0.0.1:1/x"}
    good = subprocess.run([sys.executable, "-m", package, "check"], env=environment, capture_output=True, text=True)
    assert (good.returncode, good.stderr) == (0, "")
    bad = subprocess.run(
        [sys.executable, "-m", package, "check"],
        env=environment | {"REDIS_DB": "many"},
        capture_output=True,
        text=True,
    )
    assert bad.returncode == 1
    assert "REDIS_DB" in bad.stdout + bad.stderr


def test_probe_asks_the_running_process(suite: Suite) -> None:
    worker = suite.notifications_worker().ready()
    command = [sys.executable, "-m", "notifications_worker", "probe"]
    environment = {**suite.environment, "HEALTH_PORT": str(worker.port)}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    worker.kill()
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 1


@pytest.mark.parametrize("package", PACKAGES)
def test_without_redis_a_start_waits_aloud_and_gives_up_in_time(suite: Suite, package: str, closed_port: int) -> None:
    nobody = f"redis://127.0.0.1:{closed_port}/0"
    process = suite.start(package, REDIS_URL=nobody, START_TIMEOUT_MS="2500")
    wait_for(lambda: process.status("/health/live") == 200, 10)
    assert process.status("/health/ready") == 503
    assert process.popen.wait(15) == 1
    assert str(closed_port) in process.log.read_text()
    assert "START_TIMEOUT_MS" in process.log.read_text()


def test_without_postgres_the_events_worker_waits_aloud_and_gives_up_in_time(suite: Suite, closed_port: int) -> None:
    nobody = f"postgresql://u:p@127.0.0.1:{closed_port}/x"
    process = suite.events_worker(DATABASE_URL=nobody, START_TIMEOUT_MS="2500")
    wait_for(lambda: process.status("/health/ready") == 503, 10)
    assert process.popen.wait(15) == 1
    assert "postgres" in process.log.read_text()


def test_an_old_schema_stops_the_start_and_names_the_command(suite: Suite) -> None:
    with psycopg.connect(suite.database_url) as connection:
        connection.execute("DELETE FROM _yoyo_migration")
    process = suite.events_worker()
    assert process.popen.wait(20) == 1
    assert "intelliflow migrate" in process.log.read_text()


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_idle_workers_stop_at_once_by_their_signal_s_code(suite: Suite, number: signal.Signals, code: int) -> None:
    workers = [suite.events_worker().ready(), suite.notifications_worker().ready()]
    started = time.monotonic()
    assert [worker.stop(number) for worker in workers] == [code, code]
    assert time.monotonic() - started < 5


def test_a_stop_under_load_finishes_what_runs_and_loses_nothing(suite: Suite) -> None:
    events, notifications = suite.events_worker().ready(), suite.notifications_worker().ready()
    suite.commit_leads(200)
    suite.wait_for_mails(20, within=20)
    assert [notifications.stop(), events.stop()] == [143, 143]
    assert suite.redis().llen(f"{EMAIL}:active") == 0
    assert suite.redis().llen("intelliflow:events:active") == 0
    notifications.restart()
    events.restart()
    suite.wait_for_mails(200, within=30)
    assert len(suite.notification_ids()) == 200


def test_a_job_past_the_deadline_is_handed_back_unburnt_with_exit_code_1(suite: Suite, silent_server: int) -> None:
    suite.events_worker().ready()
    stuck = suite.notifications_worker(SMTP_PORT=str(silent_server), SHUTDOWN_TIMEOUT_MS="500").ready()
    suite.commit_leads(1)
    # Not when Redis calls it active: a job whose claim is answered after the signal is returned before it begins.
    wait_for(lambda: stuck.metric("intelliflow_jobs_in_progress") == 1, 10)
    assert stuck.stop() == 1
    assert "SHUTDOWN_TIMEOUT_MS" in stuck.log.read_text()
    (job_id,) = suite.redis().lrange(f"{EMAIL}:wait", 0, -1)
    assert isinstance(job_id, bytes)
    assert suite.redis().hget(f"{EMAIL}:{job_id.decode()}", "atm") is None
    suite.notifications_worker().ready()
    suite.wait_for_mails(1, within=15)


def test_a_second_signal_hands_back_at_once(suite: Suite, silent_server: int) -> None:
    suite.events_worker().ready()
    stuck = suite.notifications_worker(SMTP_PORT=str(silent_server)).ready()
    suite.commit_leads(1)
    wait_for(lambda: stuck.metric("intelliflow_jobs_in_progress") == 1, 10)
    stuck.popen.send_signal(signal.SIGTERM)
    wait_for(lambda: stuck.status("/health/ready") == 503, 5)
    assert stuck.status("/health/live") == 200
    started = time.monotonic()
    assert stuck.stop() == 1
    assert time.monotonic() - started < 5
    assert suite.redis().llen(f"{EMAIL}:wait") == 1
    assert "second signal" in stuck.log.read_text()


def test_drain_works_until_nothing_is_left_and_ends_well(suite: Suite) -> None:
    suite.commit_leads(50)
    command = [sys.executable, "-m"]
    for package in PACKAGES:
        environment = {**suite.environment, "HEALTH_PORT": "0"}
        drained = subprocess.run(
            [*command, package, "--drain"], env=environment, capture_output=True, timeout=60, text=True
        )
        assert drained.returncode == 0, drained.stdout + drained.stderr
    suite.wait_for_mails(50, within=1)


def test_outages_turn_readiness_off_and_work_goes_on_within_two_seconds_of_their_end(
    own_suite: Suite, own_redis: RedisServer, own_postgres: PostgresServer
) -> None:
    worker = own_suite.events_worker().ready()
    for server in (own_redis, own_postgres):
        server.stop()
        wait_for(lambda: worker.status("/health/ready") == 503, 5)
        assert worker.status("/health/live") == 200
        server.start()
        started = time.monotonic()
        own_suite.commit_leads(1)
        before = worker.metric("intelliflow_outbox_events_published_total")
        wait_for(
            lambda before=before: worker.metric("intelliflow_outbox_events_published_total") > before,  # type: ignore[misc]
            10,
        )
        assert time.monotonic() - started < 2.5  # Two seconds, and half of one to look.
    assert worker.metric("intelliflow_redis_errors_total") > 0
