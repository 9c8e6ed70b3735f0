"""The arguments by which jobs are chosen, the consent that many changes need, and how rows are written."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from worker_ops.arguments import moment, positive
from worker_ops.jobs.jobs_store import Selection
from worker_ops.output import at
from worker_runtime.redaction import redact

if TYPE_CHECKING:
    from worker_ops.output import Row

MOST_ID = 2**63 - 1


def job_id(text: str) -> int:
    """Read the id of a job."""
    number = positive(text)
    if number > MOST_ID:
        raise argparse.ArgumentTypeError(f"{text} is beyond what a job's id can be")
    return number


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Let failed jobs be chosen by what they are."""
    parser.add_argument("--queue", metavar="QUEUE", help="of this queue")
    parser.add_argument("--task", metavar="TASK", help="of this task")
    parser.add_argument("--error", metavar="TEXT", help="whose last error holds this; capital letters do not matter")
    parser.add_argument("--since", metavar="TIME", type=moment, help="failed since then; 2h is two hours ago")


def selection_of(asked: argparse.Namespace) -> Selection:
    """Return what the arguments choose."""
    return Selection(queue=asked.queue, task=asked.task, error=asked.error, since=asked.since)


def add_consent(parser: argparse.ArgumentParser) -> None:
    """Let a verb that changes many be told to do it, or only to say what it would do."""
    parser.add_argument(
        "--apply", "--yes", dest="apply", action="store_true", help="do it; needed when a person types it at a terminal"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")


def is_agreed(asked: argparse.Namespace) -> bool:
    """Tell whether to do it: a script or cron means what it says, a person at a terminal says it twice."""
    typed = sys.stdin is not None and sys.stdin.isatty()
    return not asked.dry_run and (asked.apply or not typed)


def failed_row(row: Any, how: str) -> Row:
    """Write one failed job; a table has room for the first line of its error."""
    error = row["error"] and redact(row["error"])
    return {
        "jobId": row["id"],
        "queue": row["queue_name"],
        "task": row["task_name"],
        "attempts": row["attempts"],
        "created": at(row["created_at"]),
        "failed": at(row["finished_at"]),
        "error": error.splitlines()[0] if error and how == "table" else error,
    }


def group_row(row: Any) -> Row:
    """Write what is alike as one line."""
    return {
        "queue": row["queue_name"],
        "task": row["task_name"],
        **({"error": row["kind"] and redact(row["kind"])[:64]} if "kind" in row else {}),
        "count": row["count"],
        "oldest": at(row["oldest"]),
        "newest": at(row["newest"]),
        "example": row["example"],
    }
