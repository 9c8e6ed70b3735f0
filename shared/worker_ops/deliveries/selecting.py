"""The arguments by which deliveries are chosen, and how their rows are written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from worker_ops.arguments import span
from worker_ops.deliveries.store import Selection
from worker_ops.output import at
from worker_runtime.redaction import MASK, redact
from worker_runtime.settings.queues import ADDRESSEES

if TYPE_CHECKING:
    import argparse


STATES = ("sending", "waiting", "accepted", "delivered", "undelivered", "suppressed", "expired", "dropped", "dead")
SHOWN_DIGITS = 2


def add_filters(parser: argparse.ArgumentParser, *, state: str | None = None) -> None:
    """Let deliveries be chosen by what they are."""
    parser.add_argument("--state", choices=STATES, help="in this state" + (f" (default: {state})" if state else ""))
    parser.add_argument("--channel", choices=[*ADDRESSEES], help="of this channel")
    parser.add_argument("--tenant", metavar="TENANT", help="of this tenant")
    parser.add_argument("--code", metavar="CODE", help="that ended with this, like MAILBOX_FULL")
    parser.add_argument("--older-than", metavar="AGE", type=span, help="unchanged for longer than 90s, 15m, 2h, 7d")
    parser.add_argument("--newer-than", metavar="AGE", type=span, help="changed within that time")


def selection_of(asked: argparse.Namespace) -> Selection:
    """Return what the arguments choose."""
    now = datetime.now(UTC)
    return Selection(
        notifications=getattr(asked, "notification_ids", None) or None,
        state=asked.state,
        channel=asked.channel,
        tenant=asked.tenant,
        code=asked.code,
        changed_before=now - asked.older_than if asked.older_than else None,
        changed_after=now - asked.newer_than if asked.newer_than else None,
        recipient=getattr(asked, "recipient", None),
    )


def masked(recipient: str | None) -> str | None:
    """Return a recipient without the person: the domain, the host or the last two digits stay."""
    if recipient is None:
        return None
    if "://" in recipient:
        parts = urlsplit(recipient)
        return f"{parts.scheme}://{parts.hostname}/{MASK}"
    _, at, domain = recipient.rpartition("@")
    return f"{MASK}@{domain}" if at else f"{MASK}{recipient[-SHOWN_DIGITS:]}"


def shown(recipient: str | None, *, reveal: bool) -> str | None:
    """Return a recipient as it was asked for."""
    return recipient if reveal else masked(recipient)


def said(text: str | None, *, reveal: bool) -> str | None:
    """Return somebody's words as they were asked for."""
    return text if text is None or reveal else redact(text)


def delivery_row(row: Any, *, reveal: bool) -> dict[str, Any]:
    """Write one line of a list."""
    return {
        "notificationId": row["notification_id"],
        "tenantId": row["tenant_id"],
        "channel": row["channel"],
        "recipient": shown(row["recipient"], reveal=reveal),
        "state": row["state"],
        "code": row["code"],
        "attempts": row["attempts"],
        "provider": row["provider"],
        "changed": at(row["changed_at"]),
        "reason": said(row["reason"], reveal=reveal),
    }


def group_row(row: Any) -> dict[str, Any]:
    """Write what is alike as one line."""
    return {
        "channel": row["channel"],
        "state": row["state"],
        "code": row["code"],
        "count": row["count"],
        "oldest": at(row["oldest"]),
        "newest": at(row["newest"]),
        "example": row["example"],
    }
