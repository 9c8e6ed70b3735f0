"""Every benchmark runs, so that it cannot rot; how fast is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def measured(*arguments: str) -> Any:
    command = [sys.executable, str(HERE / "bench_engine.py"), *arguments, "--repeats", "1", "--json"]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.needs("node", "npm")
def test_the_engine_s_speed_is_measured_beside_both_others() -> None:
    rows = measured("--parts", "throughput", "--jobs", "150")["throughput"]
    others = {("Node", 50), ("stock Python", 50), ("stock, uvloop", 50)}
    everybody = others | {("ours", 10), ("ours", 50), ("ours", 200)}
    assert {(row["contender"], row["concurrency"]) for row in rows} == everybody
    assert all(row["jobsPerSecond"] > 0 and row["enqueuedPerSecond"] > 0 for row in rows)


@pytest.mark.needs("node", "npm")
def test_the_engine_s_alertness_is_measured_beside_both_others() -> None:
    rows = measured("--parts", "alertness", "--seconds", "1")["alertness"]
    assert [row["contender"] for row in rows] == ["Node", "ours", "stock Python"]
    assert all(row["wakeP50Ms"] > 0 and row["limitUsed"] > 0 for row in rows)


@pytest.mark.needs("node", "npm")
def test_outages_are_measured_of_ours() -> None:
    (row,) = measured("--parts", "outages", "--only", "ours", "--away", "1")["outages"]
    assert 0 < row["killedSeconds"] < 60
    assert 0 < row["awaySeconds"] < 60
