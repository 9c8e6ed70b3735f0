"""A small soak at each run of the tests; `./dev bench soak` is the large one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).with_name("bench_soak.py")


@pytest.mark.needs("node", "npm")
def test_workers_of_both_kinds_and_redis_are_killed_and_every_job_is_done_once() -> None:
    jobs = 2_000
    done = subprocess.run([sys.executable, str(SOAK), "--jobs", str(jobs), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["completed"] + found["stalled_too_often"] == jobs
    # Something fell on somebody, or this shows nothing.
    assert found["workers_killed"]
    assert found["workers_terminated"]
    assert found["redis_killed"]
    assert found["held_at_a_kill"]
