"""`python -m events_worker`, and the console script `events-worker`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events_worker.worker import EventsWorker

if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the worker; see `Worker.main` for its arguments and exit codes."""
    EventsWorker.main()


if __name__ == "__main__":
    main()
