"""The tasks that a worker has: ours, and those of the packages that JOB_QUEUE_PACKAGES names."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from procrastinate import App

__all__ = ["BUILTIN", "TasksUnusable", "load_tasks", "queues_of", "retry_limits"]

OURS = "jobs_worker.tasks"
# Procrastinate's own task, which nobody defers here.
BUILTIN = "builtin"


class TasksUnusable(Exception):
    """JOB_QUEUE_PACKAGES names something that cannot be loaded; the message says what to do."""


def load_tasks(packages: Iterable[str]) -> None:
    """Import these packages and the modules below them, which put their tasks on `job_queue`."""
    for package in (OURS, *packages):
        root = _imported(package)
        for _, below, _ in pkgutil.walk_packages(getattr(root, "__path__", ()), f"{root.__name__}."):
            if not below.endswith(".__main__"):
                _imported(below)


def queues_of(app: App) -> list[str]:
    """Return the queues that the app's tasks are deferred to by default."""
    return sorted({task.queue for task in app.tasks.values()} - {BUILTIN})


def retry_limits(app: App) -> dict[str, int]:
    """Return how often each task may be tried again, of those that say so."""
    limits = {name: getattr(task.retry_strategy, "max_attempts", None) for name, task in app.tasks.items()}
    return {name: limit for name, limit in limits.items() if limit is not None}


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise TasksUnusable(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
