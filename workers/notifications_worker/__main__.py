"""`python -m notifications_worker`, and the console script `notifications-worker`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifications_worker.worker import NotificationsWorker

if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the worker; see `Worker.main` for its arguments and exit codes."""
    NotificationsWorker.main()


if __name__ == "__main__":
    main()
