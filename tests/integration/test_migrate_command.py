"""The operator's command line as a process."""

from __future__ import annotations

import json
import subprocess
import sys

import psycopg
import pytest
import redis

LABELS = [
    "intelliflow:events",
    "intelliflow:notifications:email",
    "intelliflow:notifications:sms",
    "intelliflow:notifications:webhook",
    "intelliflow:notifications:slack",
    "intelliflow:text-extraction",
    "intelliflow:ocr-processing",
    "intelliflow:embedding-generation",
]


def intelliflow(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker_ops", *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_migrate_says_what_it_did_and_may_be_repeated(database_url: str) -> None:
    again = intelliflow("migrate", DATABASE_URL=database_url)
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr == "the schema is current (0 migrations applied now)\n"


def test_migrate_needs_a_database() -> None:
    missing = intelliflow("migrate")
    assert (missing.returncode, missing.stderr) == (
        1,
        "error: DATABASE_URL is not set, so there is no database to migrate\n",
    )
    gone = intelliflow("migrate", DATABASE_URL="postgresql://u:secret@127.0.0.1:1/d")
    assert gone.returncode == 6
    assert "secret" not in gone.stderr
    assert intelliflow("migrate", DATABASE_URL="mysql://u:secret@h/d").returncode == 1
    assert intelliflow("mirgate").returncode == 2


def test_queues_counts_every_queue(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.lpush("intelliflow:events:wait", "a", "b")
        client.zadd("intelliflow:notifications:email:failed", {"c": 1})
        client.hset("intelliflow:text-extraction:meta", "paused", "1")
    asked = intelliflow("queues", "-o", "json", REDIS_URL=redis_url)
    left_out = "DATABASE_URL is not set: workflow_execution_queue is not among these\n"
    assert (asked.returncode, asked.stderr) == (0, left_out)
    rows = {row["queue"]: row for row in json.loads(asked.stdout)}
    assert list(rows) == LABELS
    assert rows["intelliflow:events"]["waiting"] == 2
    assert rows["intelliflow:notifications:email"]["failed"] == 1
    assert rows["intelliflow:text-extraction"]["paused"] is True


def test_queues_counts_workflows_too(redis_url: str, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO fw_workflow_executions (organization_id, workflow, workflow_version)"
            " SELECT 'acme', 'demo', 1 FROM generate_series(1, 3)"
        )
        asked = intelliflow("queues", "-o", "json", REDIS_URL=redis_url, DATABASE_URL=database_url)
        assert (asked.returncode, asked.stderr) == (0, "")
        row = json.loads(asked.stdout)[-1]
        assert (row["queue"], row["waiting"], row["paused"]) == ("workflow_execution_queue", 3, False)
        connection.execute("SELECT cron.unschedule('process-workflow-queue')")
    asked = intelliflow("queues", "-o", "json", REDIS_URL=redis_url, DATABASE_URL=database_url)
    assert json.loads(asked.stdout)[-1]["paused"] is True


def test_queues_without_postgresql_counts_the_others(redis_url: str) -> None:
    gone = intelliflow("queues", "-o", "json", REDIS_URL=redis_url, DATABASE_URL="postgresql://u:secret@127.0.0.1:1/d")
    assert (gone.returncode, [row["queue"] for row in json.loads(gone.stdout)]) == (4, LABELS)
    assert gone.stderr.startswith("workflow_execution_queue is not among these: ")
    assert "secret" not in gone.stderr


@pytest.mark.parametrize("how", ["table", "ndjson"])
def test_queues_has_a_line_for_each(redis_url: str, how: str) -> None:
    lines = intelliflow("queues", "--output", how, REDIS_URL=redis_url).stdout.splitlines()
    assert len(lines) == len(LABELS) + (how == "table")
    assert all(label in line for label, line in zip(reversed(LABELS), reversed(lines), strict=False))


def test_queues_without_redis_is_unreachable() -> None:
    asked = intelliflow("queues", REDIS_URL="redis://:secret@127.0.0.1:1/0")
    assert (asked.returncode, asked.stdout) == (6, "")
    assert asked.stderr.startswith("error: cannot reach Redis")
    assert "secret" not in asked.stderr
