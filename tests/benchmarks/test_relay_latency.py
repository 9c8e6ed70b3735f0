"""The relay's latency is measured, so that the benchmark cannot rot; how fast is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_hint_is_measured_beside_the_poll_and_what_it_costs() -> None:
    command = [sys.executable, str(Path(__file__).with_name("relay_latency.py")), "--seconds", "0.3", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    rows = {row["contender"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert set(rows) == {"polled", "hinted", "no hint", "hint", "NOTIFY within"}
    assert rows["polled"]["events"] == rows["hinted"]["events"] == 30
    assert 0 < rows["hinted"]["p50Ms"] <= rows["hinted"]["p99Ms"]
    assert all(rows[name]["commitsPerSecond"] > 0 for name in ("no hint", "hint", "NOTIFY within"))
