"""The arguments by which executions are chosen, and how their rows are written."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any
from uuid import UUID

from worker_ops.arguments import moment
from worker_ops.output import at
from worker_ops.workflow.executions_store import Selection
from worker_runtime.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Sequence


def execution_id(text: str) -> str:
    """Read the id of an execution."""
    try:
        return str(UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an execution's id (a UUID)") from None


def add_ids(parser: argparse.ArgumentParser) -> None:
    """Let executions be named."""
    parser.add_argument("execution_ids", metavar="EXECUTION_ID", nargs="*", type=execution_id, help="these executions")


def add_filters(parser: argparse.ArgumentParser, statuses: Sequence[str]) -> None:
    """Let executions be chosen by what they are."""
    parser.add_argument("--org", metavar="ORG", help="of this organisation")
    parser.add_argument("--status", choices=statuses, help="in this status")
    parser.add_argument("--rule", metavar="NAME", help="of this rule, or workflow in Python")
    parser.add_argument("--error", metavar="TEXT", help="whose last error holds this; capital letters do not matter")
    parser.add_argument("--since", metavar="TIME", type=moment, help="made since then; 2h is two hours ago")


def selection_of(asked: argparse.Namespace, statuses: Sequence[str] | None = None) -> Selection:
    """Return what the arguments choose; `statuses` are meant unless they name one."""
    named = (asked.status,) if asked.status else statuses
    return Selection(
        organization=asked.org,
        statuses=tuple(named) if named is not None else None,
        rule=asked.rule,
        error=asked.error,
        created_after=asked.since,
    )


def execution_row(row: Any) -> dict[str, Any]:
    """Write one line of a list."""
    return {
        "executionId": str(row["id"]),
        "organizationId": row["organization_id"],
        "workflow": row["workflow"],
        "version": row["version"],
        "status": row["status"],
        "attempts": row["total_attempts"],
        "created": at(row["created_at"]),
        "completed": at(row["completed_at"]),
        "nextRetry": at(row["next_retry_at"]),
        "error": row["last_error"] and redact(row["last_error"]),
    }


def group_row(row: Any) -> dict[str, Any]:
    """Write what is alike as one line."""
    return {
        "status": row["status"],
        "workflow": row["workflow"],
        "code": row["code"] and redact(row["code"])[:64],
        "count": row["count"],
        "oldest": at(row["oldest"]),
        "newest": at(row["newest"]),
        "example": str(row["example"]),
    }
