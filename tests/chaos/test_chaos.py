"""A short storm at each run of the tests; `./dev bench chaos --minutes 30` is a long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[1] / "benchmarks" / "bench_chaos.py"


@pytest.mark.timeout(300)
def test_the_nine_invariants_hold_while_everything_breaks() -> None:
    command = [sys.executable, str(CHAOS), "--minutes", "0.25", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    # Something happened to somebody, or this shows nothing.
    assert figures["events handled"] > 100
    assert figures["rolled back"]
    assert figures["runs that failed"]
    kinds = ("killed", "stopped", "frozen", "postgres", "redis", "cut off", "deposed")
    assert all(figures[f"trouble: {kind}"] for kind in kinds), figures
