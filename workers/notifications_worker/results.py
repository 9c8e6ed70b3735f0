"""What a notification's job completes with: docs/reference/notification-job.schema.json tells producers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from notifications_worker.notification import DeliveryResult
from worker_runtime.outcome import Done

if TYPE_CHECKING:
    from notifications_worker.notification import Notification
    from worker_runtime.clock import Clock

__all__ = ["done", "not_sent"]


def done(
    notification: Notification,
    clock: Clock,
    provider_message_id: str | None,
    *,
    at: float | None = None,
    seconds: float = 0.0,
) -> Done:
    """Say that a provider accepted it: now, or at that second since the epoch."""
    return _result(notification, clock.now() if at is None else at, seconds, provider_message_id or None, None)


def not_sent(notification: Notification, clock: Clock, why: str) -> Done:
    """Say that it was not sent and need not be: `expired`, or unwanted."""
    return _result(notification, clock.now(), 0.0, None, why)


def _result(
    notification: Notification, at: float, seconds: float, provider_message_id: str | None, error: str | None
) -> Done:
    result = DeliveryResult(
        notification_id=notification.notification_id,
        channel=notification.channel,
        success=error is None,
        provider_message_id=provider_message_id,
        delivered_at=datetime.fromtimestamp(at, UTC),
        delivery_time_ms=round(seconds * 1000),
        error=error,
    )
    return Done(result.as_json())
