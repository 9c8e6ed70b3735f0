"""The commands of the workers runbook, as written there, against running workers."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from worker_suite import wait_for

if TYPE_CHECKING:
    from worker_suite import Process, Suite


@pytest.fixture
def workers(suite: Suite) -> dict[int, Process]:
    """The two workers by the port that the runbook gives them."""
    workers = {3100: suite.events_worker().ready(), 3102: suite.notifications_worker().ready()}
    suite.commit_leads(5)
    suite.wait_for_mails(5, within=20)
    return workers


def shell(command: str, workers: dict[int, Process], suite: Suite) -> str:
    """Run a line of the runbook with this test's ports in the place of the usual ones."""
    for usual, worker in workers.items():
        command = command.replace(f"localhost:{usual}", f"127.0.0.1:{worker.port}")
    redis = urlsplit(suite.redis_url)
    command = command.replace("redis-cli", f"redis-cli -p {redis.port}")
    command = command.replace("psql", f"psql -At {suite.database_url}")
    script = f"set -o pipefail; {command}"
    environment = os.environ | ({"REDISCLI_AUTH": redis.password} if redis.password else {})
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.needs("curl")
@pytest.mark.parametrize("port", [3100, 3102])
def test_the_health_endpoints_answer(suite: Suite, workers: dict[int, Process], port: int) -> None:
    for path in ("live", "ready", "startup", "detailed"):
        answer = json.loads(shell(f"curl -fsS http://localhost:{port}/health/{path}", workers, suite))
        assert answer["timestamp"].endswith("Z")
    assert json.loads(shell(f"curl -fsS http://localhost:{port}/health", workers, suite))["status"] == "healthy"


@pytest.mark.needs("curl", "jq")
def test_the_jq_paths_exist(suite: Suite, workers: dict[int, Process]) -> None:
    detailed = "curl -s http://localhost:{port}/health/detailed | jq '{path}'"
    dependencies = json.loads(shell(detailed.format(port=3102, path=".dependencies"), workers, suite))
    assert dependencies["smtp"]["circuitBreaker"]["state"] == "CLOSED"
    assert dependencies["redis"]["status"] == "ok"
    assert int(shell(detailed.format(port=3100, path=".metrics.concurrency"), workers, suite)) == 10
    assert int(shell(detailed.format(port=3100, path=".config.pollIntervalMs"), workers, suite)) == 100
    assert int(shell(detailed.format(port=3100, path=".config.batchSize"), workers, suite)) == 100
    queues = json.loads(shell(detailed.format(port=3102, path=".queues"), workers, suite))
    wait_for(
        lambda: (
            json.loads(shell(detailed.format(port=3102, path=".queues"), workers, suite))[
                "intelliflow:notifications:email"
            ]["completed"]
            == 5
        ),
        5,
    )
    assert set(queues["intelliflow:notifications:email"]) >= {"waiting", "active", "failed", "delayed", "paused"}


@pytest.mark.needs("redis-cli")
@pytest.mark.parametrize(
    "command",
    [
        "redis-cli ping",
        "redis-cli LLEN intelliflow:events:wait",
        "redis-cli LLEN intelliflow:events:active",
        "redis-cli LLEN intelliflow:text-extraction:wait",
        "redis-cli LLEN intelliflow:notifications:email:wait",
        # The runbook says LLEN and LRANGE; BullMQ's failed set is sorted.
        "redis-cli ZCARD intelliflow:events:failed",
        "redis-cli INFO memory",
    ],
)
def test_redis_can_be_asked_as_written(suite: Suite, workers: dict[int, Process], command: str) -> None:
    answer = shell(command, workers, suite)
    assert "WRONGTYPE" not in answer
    assert answer in ("0", "PONG") or answer.startswith("# Memory")


@pytest.mark.needs("psql")
def test_the_outbox_can_be_asked_as_written(suite: Suite, workers: dict[int, Process]) -> None:
    query = "SELECT COUNT(*) FROM domain_event_outbox WHERE processed_at IS NULL"
    assert shell(f'psql -c "{query}"', workers, suite) == "0"


@pytest.mark.needs("promtool")
def test_promtool_accepts_the_metrics(suite: Suite, workers: dict[int, Process]) -> None:
    for worker in workers.values():
        metrics = worker.get("/metrics")[1]
        checked = subprocess.run(["promtool", "check", "metrics"], input=metrics, capture_output=True, text=True)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_promised_metrics_exist_and_count(suite: Suite, workers: dict[int, Process]) -> None:
    events, notifications = workers[3100], workers[3102]
    wait_for(lambda: notifications.metric("intelliflow_worker_jobs_processed_total") == 5, 5)
    assert events.metric("intelliflow_worker_jobs_processed_total") == 5
    assert events.metric("intelliflow_outbox_events_published_total") == 5
    assert events.metric("intelliflow_worker_jobs_failed_total") == 0
    for name in (
        "intelliflow_queue_depth",
        "intelliflow_queue_active",
        "intelliflow_queue_delayed",
        "intelliflow_queue_dlq_depth",
        "intelliflow_outbox_batch_size",
        "intelliflow_outbox_events_failed_total",
        "intelliflow_worker_retries_total",
        "intelliflow_circuit_breaker_state",
        "intelliflow_worker_job_duration_seconds_count",
    ):
        assert f"\n{name}{{" in events.get("/metrics")[1] or f"\n{name} " in events.get("/metrics")[1], name


def test_nothing_can_be_changed_through_the_health_port(workers: dict[int, Process]) -> None:
    import urllib.error  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    for path in ("/health", "/metrics", "/health/ready"):
        request = urllib.request.Request(f"http://127.0.0.1:{workers[3100].port}{path}", method="POST", data=b"{}")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=3)
        assert refused.value.code == 405
        refused.value.close()
