"""`python -m workflow_worker`, and the console script `workflow-worker`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workflow_worker.worker import WorkflowWorker

if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the worker; see `Worker.main` for its arguments and exit codes."""
    WorkflowWorker.main()


if __name__ == "__main__":
    main()
