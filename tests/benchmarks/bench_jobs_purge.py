"""What `intelliflow jobs purge` and `retry-all` ask of the server: a million jobs, and how long each statement takes.

Measured by the server: it writes down what every statement of a command took. The tables hold nothing else.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Run as a file, its own folder is what Python searches.
sys.path.insert(0, str(Path(__file__).parents[1]))

import psycopg

from benchmarks.tables import table
from embedded_stack import PostgresServer, postgres_server
from worker_ops.jobs.schema import migrate_jobs

COMMANDS = {"retry-all": ["retry-all"], "purge": ["purge", "30", "--include-failed"]}
# As they are written, and not by way of each change of their status.
FILL = """
SET session_replication_role = replica;
TRUNCATE procrastinate_jobs, procrastinate_events, procrastinate_periodic_defers RESTART IDENTITY;
INSERT INTO procrastinate_jobs (queue_name, task_name, args, status, attempts, created_at, started_at, finished_at)
SELECT 'queue ' || n % 3, 'task ' || n % 7, jsonb_build_object('orderId', n),
       (CASE WHEN n % {failing} = 0 THEN 'failed' ELSE 'succeeded' END)::procrastinate_job_status, 1, at, at, at
  FROM generate_series(1, {jobs}) AS n, LATERAL (SELECT now() - interval '90 days' + n * interval '1 second') AS t (at);
INSERT INTO procrastinate_events (job_id, type, at)
SELECT id, type, created_at
  FROM procrastinate_jobs, unnest('{{deferred,started,succeeded}}'::procrastinate_job_event_type[]) AS type;
INSERT INTO procrastinate_events (job_id, type, at, error, error_traceback, attempt)
SELECT id, 'error', created_at, 'ConnectionError: no route to host', repeat('a line of a traceback ', 20), 1
  FROM procrastinate_jobs WHERE status = 'failed';
"""
COLUMNS = {
    "jobs/s": ("jobsPerSecond", ".0f"),
    "statements": ("statements", "d"),
    "longest ms": ("longestMs", ".1f"),
    "p99 ms": ("p99Ms", ".1f"),
    "mean ms": ("meanMs", ".1f"),
    "memory MiB": ("memoryMiB", ".0f"),
}
TOOK = re.compile(r"duration: ([0-9.]+) ms")
# A child of its own, so that what it used is known of it alone.
MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
sys.stderr.write(f"memory {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}")
sys.exit(code)
"""


def main() -> None:
    arguments = parsed()
    with tempfile.TemporaryDirectory() as folder, postgres_server(Path(folder)) as server:
        migrate_jobs(server.url, lambda _: None)
        rows = [measured(server, name, arguments.jobs) for name in COMMANDS]
    sys.stdout.write(json.dumps(rows) + "\n" if arguments.json else table(rows, COLUMNS))


def measured(server: PostgresServer, name: str, jobs: int) -> dict[str, Any]:
    fill(server, jobs, failing=1 if name == "retry-all" else 5)
    logged = server.log.stat().st_size
    began = time.monotonic()
    command = [sys.executable, "-c", MEASURED, sys.executable, "-m", "worker_ops", "jobs", *COMMANDS[name]]
    done = subprocess.run(
        [*command, "-o", "json"],
        env={"JOB_QUEUE_DATABASE_URL": server.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.monotonic() - began
    with server.log.open() as log:
        log.seek(logged)
        took = sorted(float(found[1]) for found in TOOK.finditer(log.read()))
    counted = sum(row.get("retried", row.get("deleted", 0)) for row in json.loads(done.stdout))
    if counted != jobs:
        raise SystemExit(f"{name} changed {counted} of {jobs} jobs")
    return {
        "contender": name,
        "jobsPerSecond": jobs / seconds,
        "statements": len(took),
        "longestMs": took[-1],
        "p99Ms": took[int(len(took) * 0.99)],
        "meanMs": sum(took) / len(took),
        "memoryMiB": int(done.stderr.rpartition("memory ")[2]) / 1024,
    }


def fill(server: PostgresServer, jobs: int, failing: int) -> None:
    with psycopg.connect(server.url, autocommit=True) as database:
        database.execute(f"ALTER DATABASE {database.info.dbname} RESET log_min_duration_statement".encode())
        for statement in FILL.format(jobs=jobs, failing=failing).split(";\n"):
            database.execute(statement.encode())
        database.execute("VACUUM ANALYZE")
        database.execute(f"ALTER DATABASE {database.info.dbname} SET log_min_duration_statement = 0".encode())


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--jobs", type=int, default=1_000_000, help="how many (default 1000000)")
    parser.add_argument("--json", action="store_true", help="one machine-readable line instead of the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
