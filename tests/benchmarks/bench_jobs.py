"""Our jobs-worker beside Procrastinate's own: the same tasks deferred by the same calls, on one PostgreSQL.

Ours keeps errors and times, rescues and fences meanwhile. Contenders take turns; each has a database and processes of
its own, and every job's effect is counted. What the columns mean is in docs/explanation/performance.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

# Run as a file, its own folder is what Python searches.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.jobs.contenders import contenders
from benchmarks.jobs.recovery import measure_recovery
from benchmarks.tables import table
from benchmarks.workflows.measurement import measure_latency, measure_throughput

COLUMNS = {
    "throughput": {
        "jobs/s": ("executionsPerSecond", ".0f"),
        "slowest": ("slowest", ".0f"),
        "fastest": ("fastest", ".0f"),
        "worker CPU s/1k": ("workerCpuPer1k", ".2f"),
        "server CPU s/1k": ("serverCpuPer1k", ".2f"),
        "deferred/s": ("enqueuedPerSecond", ".0f"),
    },
    "latency": {
        "begun after: p50 ms": ("p50Ms", ".1f"),
        "p95 ms": ("p95Ms", ".1f"),
        "p99 ms": ("p99Ms", ".1f"),
        "cores meanwhile": ("cores", ".2f"),
    },
    "recovery": {
        "before: jobs/s": ("before", ".0f"),
        "done again after s": ("again", ".1f"),
        "then: jobs/s": ("after", ".0f"),
        "of before": ("part", ".2f"),
    },
}


def main() -> None:
    arguments = parsed()
    everybody = [one for one in contenders() if arguments.only in (None, one.name)]
    measure = {
        "throughput": lambda: measure_throughput(everybody, arguments.jobs, arguments.repeats),
        "latency": lambda: measure_latency(everybody, arguments.singles, arguments.every),
        "recovery": lambda: measure_recovery(arguments.seconds, arguments.jobs * 12),
    }
    measured: dict[str, list[dict[str, Any]]] = {part: measure[part]() for part in arguments.parts}
    if arguments.json:
        sys.stdout.write(json.dumps(measured) + "\n")
        return
    for part, rows in measured.items():
        sys.stdout.write(f"{part}\n{table(rows, COLUMNS[part])}\n")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    add("--parts", nargs="+", choices=COLUMNS, default=tuple(COLUMNS), help="what to measure (default: everything)")
    add("--jobs", type=int, default=5_000, help="backlog (default 5000)")
    add("--repeats", type=int, default=3, help="turns of each contender (default 3)")
    add("--singles", type=int, default=200, help="jobs deferred one by one (default 200)")
    add("--every", type=float, default=0.05, help="seconds between them, about (default 0.05)")
    add("--seconds", type=float, default=4.0, help="before and after an outage (default 4)")
    add("--only", help="measure one contender by its name")
    add("--json", action="store_true", help="one machine-readable line instead of the tables")
    return parser.parse_args()


if __name__ == "__main__":
    main()
