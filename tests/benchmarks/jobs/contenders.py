"""Our worker and Procrastinate's own, each with the slots that a small and a large process have."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.workflows.contenders import Contender

HERE = Path(__file__).parent
SLOTS = (10, 50)
BEGAN = "SELECT extract(epoch FROM min(at)) FROM procrastinate_events WHERE type = 'started'"
FINISHED = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded' AND queue_name = 'bench'"


def contenders() -> list[Contender]:
    """Return all of them."""
    return [*map(plain, SLOTS), *map(ours, SLOTS)]


def ours(slots: int) -> Contender:
    """Return the process that a team runs, with rescue and error records on."""
    return Contender(
        f"ours, {slots}",
        (sys.executable, "-m", "jobs_worker"),
        (sys.executable, str(HERE / "starter.py"), "ours"),
        BEGAN,
        FINISHED,
        {"JOB_QUEUE_PACKAGES": "benchmarks.jobs.ours_tasks", "LOG_LEVEL": "error", "QUEUE_CONCURRENCY": str(slots)},
        (1,),
    )


def plain(slots: int) -> Contender:
    """Return Procrastinate's worker."""
    return Contender(
        f"Procrastinate, {slots}",
        (sys.executable, str(HERE / "plain_app.py"), str(slots)),
        (sys.executable, str(HERE / "starter.py"), "plain"),
        BEGAN,
        FINISHED,
        steps=(1,),
    )
