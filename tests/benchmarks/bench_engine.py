"""Our queue engine beside Node's BullMQ and the stock Python one: jobs a second, CPU, bulk enqueue.

  python tests/benchmarks/bench_engine.py [--jobs N] [--repeats R] [--json]

Contenders take turns, so that a noisy machine hits all alike; each measurement has a new server without persistence
and a process of its own, and is timed inside it from the first job to the last. Jobs are no-ops with about 300 bytes of
JSON. Ours is the whole lifecycle: payload validation, locks, retries, metrics, default retention. `ratio` is ours at
concurrency 50 to the row's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded_stack import redis_server

HERE = Path(__file__).parent
TESTS = HERE.parent
# Run as a file, its own folder is what Python searches; Node's packages are the interop tests' affair.
sys.path.insert(0, str(TESTS))

from interop.node_packages import node_packages  # noqa: E402

BODY = json.dumps(
    {
        "eventId": "0193a3c8-7d34-7000-9c1e-5f0d2b6c8a11",
        "eventType": "lead.created",
        "tenantId": "tenant_0042",
        "payload": {
            "leadId": "lead_000000000042",
            "email": "ada@example.com",
            "source": "web",
            "score": 42,
            "tags": ["a"],
        },
        "metadata": {"correlationId": "0193a3c8-7d34-7000-9c1e-5f0d2b6c8a12", "timestamp": "2026-01-01T00:00:00.000Z"},
    }
)
REFERENCE_CONCURRENCY = 50
MEASUREMENT_SECONDS = 300


@dataclass(frozen=True)
class Contender:
    name: str
    command: tuple[str, ...]
    concurrencies: tuple[int, ...] = (REFERENCE_CONCURRENCY,)


def main() -> None:
    arguments = parsed()
    contenders = available()
    measured: dict[tuple[str, int], list[dict[str, float]]] = {}
    for turn in range(arguments.repeats):
        for contender in contenders[turn % len(contenders) :] + contenders[: turn % len(contenders)]:
            for concurrency, figures in measure(contender, arguments.jobs):
                measured.setdefault((contender.name, concurrency), []).append(figures)
    rows = [summary(*of_whom, repeats) for of_whom, repeats in sorted(measured.items())]
    with_ratios(rows)
    sys.stdout.write(json.dumps(rows) + "\n" if arguments.json else table(rows))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--jobs",
        type=int,
        default=20_000,
        help="backlog of each measurement (default 20000: enough for Node to warm up)",
    )
    parser.add_argument("--repeats", type=int, default=3, help="turns of each contender (default 3)")
    parser.add_argument("--json", action="store_true", help="one machine-readable line instead of the table")
    return parser.parse_args()


def available() -> list[Contender]:
    ours = Contender("ours", (sys.executable, str(HERE / "engine_ours.py")), (REFERENCE_CONCURRENCY, 10, 200))
    stock = Contender("stock Python", (sys.executable, str(HERE / "engine_stock.py")))
    if not (shutil.which("node") and shutil.which("npm")):
        sys.stderr.write("left out: Node (node and npm not found)\n")
        return [stock, ours]
    return [stock, Contender("Node", ("node", str(HERE / "engine_node.mjs"), str(node_packages()))), ours]


def measure(contender: Contender, jobs: int) -> list[tuple[int, dict[str, float]]]:
    enqueue_seconds = run(contender, "enqueue", jobs, REFERENCE_CONCURRENCY)["seconds"]
    figures = []
    for concurrency in contender.concurrencies:
        drain = run(contender, "work", jobs, concurrency)
        figures.append(
            (
                concurrency,
                {
                    "jobsPerSecond": jobs / drain["seconds"],
                    "cpuSecondsPer10k": drain["cpu"] / jobs * 10_000,
                    "enqueuedPerSecond": jobs / enqueue_seconds,
                },
            )
        )
    return figures


def run(contender: Contender, role: str, jobs: int, concurrency: int) -> dict[str, float]:
    """Let a contender enqueue, or drain a backlog that is the same for all, on a server of its own."""
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder), durable=False) as server:
        task = {"url": server.url, "jobs": jobs, "concurrency": concurrency, "body": BODY}
        if role == "work":
            ask((sys.executable, str(HERE / "engine_ours.py")), {**task, "role": "enqueue"})
        figures = ask(contender.command, {**task, "role": role})
        part = "wait" if role == "enqueue" else "completed"
        counted = server.ask("LLEN" if role == "enqueue" else "ZCARD", f"intelliflow:events:{part}")
        if counted != f":{jobs}":
            raise SystemExit(f"{contender.name}: {counted} of {jobs} jobs are in {part}")
    return figures


def ask(command: tuple[str, ...], task: dict[str, Any]) -> dict[str, float]:
    environment = {**os.environ, "TASK": json.dumps(task), "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, check=True, timeout=MEASUREMENT_SECONDS, text=True
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def summary(name: str, concurrency: int, repeats: list[dict[str, float]]) -> dict[str, Any]:
    medians = {key: statistics.median(figures[key] for figures in repeats) for key in repeats[0]}
    rates = [figures["jobsPerSecond"] for figures in repeats]
    return {"contender": name, "concurrency": concurrency, **medians, "slowest": min(rates), "fastest": max(rates)}


def with_ratios(rows: list[dict[str, Any]]) -> None:
    """Say how many times faster ours is than each, at the same concurrency where it has been measured."""
    ours = next(row for row in rows if row["contender"] == "ours" and row["concurrency"] == REFERENCE_CONCURRENCY)
    for row in rows:
        row["ratio"] = ours["jobsPerSecond"] / row["jobsPerSecond"]
        row["enqueueRatio"] = ours["enqueuedPerSecond"] / row["enqueuedPerSecond"]


def table(rows: list[dict[str, Any]]) -> str:
    lines = [aligned("", "conc.", "jobs/s", "slowest..fastest", "ratio", "CPU s/10k", "bulk add/s", "ratio")]
    for row in rows:
        spread = f"{row['slowest']:.0f}..{row['fastest']:.0f}"
        speed = f"{row['jobsPerSecond']:.0f}", spread, f"{row['ratio']:.2f}", f"{row['cpuSecondsPer10k']:.2f}"
        enqueue = f"{row['enqueuedPerSecond']:.0f}", f"{row['enqueueRatio']:.2f}"
        lines.append(aligned(row["contender"], row["concurrency"], *speed, *enqueue))
    return "\n".join(lines) + "\n"


def aligned(name: str, *cells: object) -> str:
    widths = (6, 9, 19, 7, 11, 12, 7)
    return f"{name:14}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


if __name__ == "__main__":
    main()
