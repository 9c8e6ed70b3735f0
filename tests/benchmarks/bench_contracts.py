"""What keeping a contract costs: the worker per event, and the database per insert when it checks too.

Rows of the database come from one statement for many events without waiting for the disk, so that the check is what
differs; "session" is what the first insert of a new session takes longer than its third.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import timeit
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Run as a file, its own folder is what Python searches.
sys.path.insert(0, str(Path(__file__).parents[1]))

import psycopg

from benchmarks.tables import table
from embedded_stack import postgres_server
from events_worker.contracts import load_catalogue, load_contracts
from events_worker.contracts.sql import check_sql
from worker_ops.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLE = Path(__file__).parents[1] / "contracts_sample.yaml"
LEAD = {
    "leadId": "lead-4711",
    "email": "ada@analytical.example",
    "tenantId": "tenant-1",
    "firstName": "Ada",
    "lastName": "Lovelace",
    "company": "Analytical Engines",
    "source": "website",
    "note": "x" * 120,
}
OLD_DEAL = {"id": 7, "ownerId": "u-1", "value": 9.5, "state": "WON"}
INSERT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
SELECT gen_random_uuid(), 'lead.created', 'Lead', 'lead-' || number, 'tenant-1', %s::jsonb, '{"version": "1.0"}'
  FROM generate_series(1, %s) AS number
"""
SESSIONS = 11
COLUMNS = {
    "worker": {"us an event": ("microseconds", ".1f")},
    "database": {"us an insert": ("microseconds", ".1f"), "session ms": ("sessionMs", ".2f")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--events", type=int, default=20_000, help="per measurement (default 20000)")
    parser.add_argument("--repeats", type=int, default=5, help="turns, of which the median counts (default 5)")
    parser.add_argument("--json", action="store_true", help="one machine-readable line instead of the tables")
    asked = parser.parse_args()
    measured = {"worker": of_worker(asked.events, asked.repeats), "database": of_database(asked.events, asked.repeats)}
    if asked.json:
        sys.stdout.write(json.dumps(measured) + "\n")
        return
    for part, rows in measured.items():
        sys.stdout.write(f"{part}\n{table(rows, COLUMNS[part])}\n")


def of_worker(events: int, repeats: int) -> list[dict[str, Any]]:
    shipped, sample = load_contracts(), load_contracts(SAMPLE)
    cases: dict[str, Callable[[], object]] = {
        "valid": lambda: shipped.read("lead.created", "1.0", LEAD),
        "a field is missing": lambda: shipped.read("lead.created", "1.0", {"leadId": "l-1"}),
        "lifted three times": lambda: sample.read("deal.signed", "1.0", OLD_DEAL),
    }
    return [
        {
            "contender": name,
            "microseconds": statistics.median(timeit.repeat(read, number=events, repeat=repeats)) / events * 1e6,
        }
        for name, read in cases.items()
    ]


def of_database(events: int, repeats: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, postgres_server(Path(folder) / "postgres", durable=False) as server:
        migrate(server.url, lambda _: None)
        unchecked = inserting(server.url, "unchecked", events, repeats)
        with psycopg.connect(server.url) as connection:
            connection.execute(check_sql(load_catalogue()))
        return [unchecked, inserting(server.url, "checked", events, repeats)]


def inserting(url: str, name: str, events: int, repeats: int) -> dict[str, Any]:
    seconds = statistics.median(many_inserted(url, events) for _ in range(repeats))
    session = statistics.median(session_begun(url) for _ in range(SESSIONS))
    return {"contender": name, "microseconds": seconds / events * 1e6, "sessionMs": session * 1e3}


def many_inserted(url: str, events: int) -> float:
    with psycopg.connect(url, autocommit=True) as connection:
        inserted(connection, 1)
        seconds = inserted(connection, events)
        connection.execute("TRUNCATE domain_event_outbox")
    return seconds


def session_begun(url: str) -> float:
    with psycopg.connect(url, autocommit=True) as connection:
        first, _, third = (inserted(connection, 1) for _ in range(3))
    return first - third


def inserted(connection: psycopg.Connection, events: int) -> float:
    began = time.perf_counter()
    connection.execute(INSERT, [json.dumps(LEAD), events])
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
