"""What the workflow-worker's health page and metrics say of its work, as every worker's do."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
import pytest

from worker_suite import Process, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HELD = """
import asyncio, os, pathlib
from workflow_worker.registry import workflow

GATE = pathlib.Path(os.environ["GATE"])

@workflow("held")
async def held(ctx):
    async def hold(step):
        while not GATE.exists():
            await asyncio.sleep(0.02)

    await ctx.step("hold", hold)
"""
WAIT = "intelliflow_job_wait_seconds"


@pytest.fixture
def worker(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Process]:
    (tmp_path / "held_workflows.py").write_text(HELD)
    environment = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "WORKFLOW_PACKAGES": "held_workflows",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "GATE": str(tmp_path / "gate"),
    }
    process = Process("workflow_worker", environment, tmp_path / "log")
    try:
        yield process.ready()
    finally:
        process.end()


def test_what_is_at_work_and_when_it_was_taken_is_shown(worker: Process, database_url: str, tmp_path: Path) -> None:
    idle = worker.detailed()
    assert (idle["inFlight"], idle["metrics"]["inFlight"]) == ([], 0)
    assert idle["workflows"] == {"lastRunAt": None, "lastBatchSize": None}
    before = datetime.now(UTC)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO fw_module_settings (organization_id, fw_execution_worker_enabled) VALUES ('acme', true)"
        )
        row = connection.execute("SELECT fw_workflow_start('acme', 'held')").fetchone()
        assert row is not None
    wait_for(lambda: worker.detailed()["inFlight"], what="the claim")
    busy = worker.detailed()
    (job,) = busy["inFlight"]
    assert (job["queue"], job["jobId"], job["name"]) == ("workflow_execution_queue", str(row[0]), "held")
    assert 0 <= job["ageMs"] < 60_000
    assert busy["metrics"]["inFlight"] == 1
    assert busy["workflows"]["lastBatchSize"] == 1
    # The page has milliseconds.
    assert datetime.fromisoformat(busy["workflows"]["lastRunAt"]).timestamp() > before.timestamp() - 0.001
    assert worker.metric(f"{WAIT}_count") == 1
    assert 0 <= worker.metric(f"{WAIT}_sum") < 20
    (tmp_path / "gate").touch()
    wait_for(lambda: worker.metric("intelliflow_worker_jobs_processed_total") == 1, what="the end")
    assert worker.detailed()["inFlight"] == []
    assert worker.metric(f"{WAIT}_count") == 1
