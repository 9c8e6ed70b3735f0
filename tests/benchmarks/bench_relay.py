"""Our relay from PostgreSQL to the queue beside those that teams write, with the database waiting for its disk.

Contenders take turns; each measurement has servers and processes of its own. What the columns mean is in
docs/explanation/performance.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

# Run as a file, its own folder is what Python searches.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.relay_in_order import measure_look, measure_order, measure_takeover
from benchmarks.relay_throughput import measure_throughput, relayers
from benchmarks.tables import table

MOST_IN_ORDER = 3_000
MOST_TAKEN_OVER = 200
COLUMNS = {
    "throughput": {
        "events/s": ("eventsPerSecond", ".0f"),
        "slowest": ("slowest", ".0f"),
        "fastest": ("fastest", ".0f"),
        "ours is x": ("ratio", ".2f"),
        "CPU s/10k": ("cpuSecondsPer10k", ".2f"),
    },
    "order": {"events handled/s": ("eventsPerSecond", ".0f")},
    "takeover": {"worker killed: s until its partitions' events are handled": ("takeoverSeconds", ".1f")},
    "look": {
        "finished rows": ("finished", ".0f"),
        "finds nothing ms": ("nothingMs", ".2f"),
        "claims one event ms": ("oneMs", ".2f"),
    },
}


def main() -> None:
    arguments = parsed()
    everybody = [relayer for relayer in relayers() if arguments.only in (None, relayer.name)]
    measure = {
        "throughput": lambda: measure_throughput(everybody, arguments.events, arguments.repeats),
        "order": lambda: measure_order(min(arguments.events, MOST_IN_ORDER)),
        "takeover": lambda: measure_takeover(MOST_TAKEN_OVER),
        "look": lambda: measure_look(arguments.finished),
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
    add("--events", type=int, default=30_000, help="backlog (default 30000)")
    add("--finished", type=int, default=400_000, help="finished rows beside the pending ones (default 400000)")
    add("--repeats", type=int, default=3, help="turns of each contender (default 3)")
    add("--only", help="measure one contender by its name")
    add("--json", action="store_true", help="one machine-readable line instead of the tables")
    return parser.parse_args()


if __name__ == "__main__":
    main()
