"""Procrastinate as its documentation has it: its schema, its app, its worker."""

from __future__ import annotations

import os
import sys

from procrastinate import App, PsycopgConnector

from benchmarks.jobs.tasks import traced

app = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"]))
trace = traced(app)


def main() -> None:
    """Work until killed."""
    with app.open():
        app.run_worker(concurrency=int(sys.argv[1]))


if __name__ == "__main__":
    main()
