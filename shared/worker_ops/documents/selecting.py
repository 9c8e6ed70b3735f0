"""The arguments by which documents are chosen, and how their rows are written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from worker_ops.arguments import span
from worker_ops.documents.store import Selection
from worker_ops.output import at
from worker_runtime.redaction import redact

if TYPE_CHECKING:
    import argparse


STATES = ("reading", "awaiting_ocr", "read", "failed")


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Let documents be chosen by what they are."""
    parser.add_argument("--tenant", metavar="TENANT", help="of this tenant")
    parser.add_argument("--state", choices=STATES, help="in this state")
    parser.add_argument("--problem", metavar="CODE", help="with this problem, like ENCRYPTED")
    parser.add_argument("--older-than", metavar="AGE", type=span, help="unchanged for longer than 90s, 15m, 2h, 7d")
    parser.add_argument("--newer-than", metavar="AGE", type=span, help="changed within that time")


def selection_of(asked: argparse.Namespace) -> Selection:
    """Return what the arguments choose."""
    now = datetime.now(UTC)
    return Selection(
        tenant=asked.tenant,
        state=asked.state,
        problem=asked.problem,
        changed_before=now - asked.older_than if asked.older_than else None,
        changed_after=now - asked.newer_than if asked.newer_than else None,
    )


def document_row(row: Any) -> dict[str, Any]:
    """Write one line of a list."""
    return {
        "documentId": row["document_id"],
        "tenantId": row["tenant_id"],
        "state": row["state"],
        "mediaType": row["media_type"],
        "pages": row["pages"],
        "chunks": row["chunks"],
        "embedded": row["embedded_at"] is not None,
        "problem": row["problem"],
        "changed": at(row["changed_at"]),
        "explanation": row["explanation"] and redact(row["explanation"]),
    }


def group_row(row: Any) -> dict[str, Any]:
    """Write what is alike as one line."""
    return {
        "state": row["state"],
        "problem": row["problem"],
        "mediaType": row["media_type"],
        "count": row["count"],
        "oldest": at(row["oldest"]),
        "newest": at(row["newest"]),
        "example": row["example"],
    }
