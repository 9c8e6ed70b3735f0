"""Our queue engine beside Node's BullMQ and the stock Python one: speed, alertness, outages.

Contenders take turns, so that a noisy machine hits all alike; each measurement has a new server without persistence
and a process of its own. Jobs are no-ops with about 300 bytes of JSON. Ours is the whole lifecycle: payload validation,
locks, retries, metrics, default retention. What the columns mean is in docs/explanation/performance.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

# Run as a file, its own folder is what Python searches.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.alertness import measure_alertness
from benchmarks.contenders import STOCK_ON_UVLOOP, contenders
from benchmarks.outages import measure_outages
from benchmarks.tables import table
from benchmarks.throughput import measure_throughput

if TYPE_CHECKING:
    from collections.abc import Mapping

PARTS = ("throughput", "alertness", "outages")
COLUMNS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "throughput": {
        "conc.": ("concurrency", ".0f"),
        "jobs/s": ("jobsPerSecond", ".0f"),
        "slowest": ("slowest", ".0f"),
        "fastest": ("fastest", ".0f"),
        "ours is x": ("ratio", ".2f"),
        "CPU s/10k": ("cpuSecondsPer10k", ".2f"),
        "reads/job": ("readsPerJob", ".2f"),
        "peak MB": ("peakMb", ".0f"),
        "bulk add/s": ("enqueuedPerSecond", ".0f"),
        "ours is  x": ("enqueueRatio", ".2f"),
    },
    "alertness": {
        "ready s": ("readySeconds", ".2f"),
        "wake p50 ms": ("wakeP50Ms", ".2f"),
        "p99": ("wakeP99Ms", ".2f"),
        "scripts/job": ("scriptsPerJob", ".1f"),
        "late p50 ms": ("lateP50Ms", ".1f"),
        "p99 ": ("lateP99Ms", ".1f"),
        "limit used": ("limitUsed", ".0%"),
        "most of 100": ("mostInWindow", ".0f"),
    },
    "outages": {
        "worker killed: s until its jobs run": ("killedSeconds", ".1f"),
        "Redis back: s until a job runs": ("awaySeconds", ".2f"),
    },
}


def main() -> None:
    arguments = parsed()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    everybody = [contender for contender in contenders() if arguments.only in (None, contender.name)]
    # Another loop changes how much it does, and little of how soon.
    as_shipped = [contender for contender in everybody if contender is not STOCK_ON_UVLOOP]
    measure = {
        "throughput": lambda: measure_throughput(everybody, arguments.jobs, arguments.repeats),
        "alertness": lambda: measure_alertness(as_shipped, arguments.seconds, arguments.repeats),
        "outages": lambda: measure_outages(as_shipped, arguments.away),
    }
    measured = {part: measure[part]() for part in arguments.parts}
    if arguments.json:
        sys.stdout.write(json.dumps(measured) + "\n")
        return
    for part, rows in measured.items():
        sys.stdout.write(f"{part}\n{table(rows, COLUMNS[part])}\n")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: everything, five minutes)")
    add("--jobs", type=int, default=20_000, help="backlog (default 20000: enough for Node to warm up)")
    add("--repeats", type=int, default=3, help="turns of each contender (default 3)")
    add("--seconds", type=float, default=10, help="length of each measurement of alertness (default 10)")
    add("--away", type=float, default=6, help="seconds for which Redis is away (default 6)")
    add("--only", help="measure one contender by its name")
    add("--json", action="store_true", help="one machine-readable line instead of the tables")
    return parser.parse_args()


if __name__ == "__main__":
    main()
