"""`python -m jobs_worker`, and the console script `jobs-worker`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs_worker.worker import JobsWorker

if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the worker; see `Worker.main` for its arguments and exit codes."""
    JobsWorker.main()


if __name__ == "__main__":
    main()
