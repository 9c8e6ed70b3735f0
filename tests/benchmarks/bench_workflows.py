"""Our workflows beside those of DBOS and of Absurd: three steps, everything durable, one PostgreSQL for all.

Contenders take turns; each measurement has a database and processes of its own, and counts every step's effect. What
the columns mean is in docs/explanation/performance.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

# Run as a file, its own folder is what Python searches.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.tables import table
from benchmarks.workflows.contenders import Contender, contenders, contenders_at_rest
from benchmarks.workflows.measurement import measure_latency, measure_throughput
from benchmarks.workflows.neighbours import measure_neighbours

COLUMNS = {
    "throughput": {
        "executions/s": ("executionsPerSecond", ".0f"),
        "slowest": ("slowest", ".0f"),
        "fastest": ("fastest", ".0f"),
        "ours is x": ("ratio", ".2f"),
        "worker CPU s/1k": ("workerCpuPer1k", ".2f"),
        "server CPU s/1k": ("serverCpuPer1k", ".2f"),
        "enqueued/s": ("enqueuedPerSecond", ".0f"),
    },
    "latency": {
        "first step after: p50 ms": ("p50Ms", ".1f"),
        "p95 ms": ("p95Ms", ".1f"),
        "p99 ms": ("p99Ms", ".1f"),
        "cores meanwhile": ("cores", ".2f"),
    },
    "neighbours": {
        "first step after: p50 ms": ("p50Ms", ".0f"),
        "p95 ms": ("p95Ms", ".0f"),
        "slowest ms": ("slowestMs", ".0f"),
        "still before it": ("left", ".0f"),
        "cores meanwhile": ("cores", ".2f"),
    },
}


def main() -> None:
    arguments = parsed()
    measure = {
        "throughput": lambda: measure_throughput(
            chosen(contenders(), arguments.only), arguments.executions, arguments.repeats
        ),
        "latency": lambda: measure_latency(
            chosen(contenders_at_rest(), arguments.only), arguments.starts, arguments.every
        ),
        "neighbours": lambda: measure_neighbours(arguments.backlog, arguments.starts // 4, 4 * arguments.every),
    }
    measured: dict[str, list[dict[str, Any]]] = {part: measure[part]() for part in arguments.parts}
    if arguments.json:
        sys.stdout.write(json.dumps(measured) + "\n")
        return
    for part, rows in measured.items():
        sys.stdout.write(f"{part}\n{table(rows, COLUMNS[part])}\n")


def chosen(everybody: list[Contender], only: str | None) -> list[Contender]:
    return [one for one in everybody if only in (None, one.name)]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    add("--parts", nargs="+", choices=COLUMNS, default=tuple(COLUMNS), help="what to measure (default: everything)")
    add("--executions", type=int, default=3_000, help="backlog (default 3000)")
    add("--repeats", type=int, default=3, help="turns of each contender (default 3)")
    add("--starts", type=int, default=200, help="single starts (default 200)")
    add("--every", type=float, default=0.05, help="seconds between single starts, about (default 0.05)")
    add("--backlog", type=int, default=100_000, help="executions of the neighbours (default 100000)")
    add("--only", help="measure one contender by its name")
    add("--json", action="store_true", help="one machine-readable line instead of the tables")
    return parser.parse_args()


if __name__ == "__main__":
    main()
