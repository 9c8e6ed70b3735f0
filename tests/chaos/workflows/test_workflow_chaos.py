"""A short storm over workflows at each run of the tests; `./dev bench chaos --of workflows --minutes 30` is a long one.

CHAOS_SEED draws another storm than the usual one: what failed once fails again with its seed, or nearly so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[2] / "benchmarks" / "bench_chaos.py"
KINDS = (
    *("killed", "stopped", "frozen", "postgres", "cut off"),
    *("purged", "sent again", "reset", "cancelling", "paused", "disabled"),
)


@pytest.mark.timeout(300)
def test_no_effect_is_lost_or_doubled_while_everything_breaks() -> None:
    seed = os.environ.get("CHAOS_SEED", "1")
    # Leases of three seconds instead of thirty, so that many of them end.
    command = [str(CHAOS), "--of", "workflows", "--minutes", "0.05", "--lease", "3", "--seed", seed, "--json"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    figures = json.loads(done.stdout)["figures"]
    sys.stdout.write(f"seed {seed}: {figures}\n")
    # Something happened to somebody, or this shows nothing.
    assert figures["executions completed"] > 50
    assert figures["executions failed"] > 5
    assert figures["taken over"]
    assert all(figures.get(f"trouble: {kind}") for kind in KINDS), figures
