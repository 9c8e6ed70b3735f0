"""`python -m ingestion_worker`, and the console script `ingestion-worker`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestion_worker.worker import IngestionWorker

if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the worker; see `Worker.main` for its arguments and exit codes."""
    IngestionWorker.main()


if __name__ == "__main__":
    main()
