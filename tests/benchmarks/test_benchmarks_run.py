"""Every benchmark runs, so that it cannot rot; how fast is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.needs("node", "npm")
def test_the_engine_s_benchmark_measures_all_three() -> None:
    command = [sys.executable, str(HERE / "bench_engine.py"), "--jobs", "150", "--repeats", "1", "--json"]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {(row["contender"], row["concurrency"]) for row in rows} == {
        ("Node", 50),
        ("stock Python", 50),
        ("ours", 10),
        ("ours", 50),
        ("ours", 200),
    }
    assert all(row["jobsPerSecond"] > 0 and row["enqueuedPerSecond"] > 0 for row in rows)
