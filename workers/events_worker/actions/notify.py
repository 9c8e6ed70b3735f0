"""`notify`: a message to one person, over a channel of the notifications-worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from events_worker.actions.action import Action, ExpressionField, PlannedJob, TextField
from worker_runtime.notification_jobs import NotificationFields, Priority, notification_job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from events_worker.actions.action import Occasion


class Notify(NotificationFields[ExpressionField, TextField], Action):
    """One job on the channel's queue; its id is that of (event, rule)."""

    @classmethod
    def queue_of(cls, written: Mapping[str, Any], /) -> str:
        """See `Action`."""
        return str(written.get("channel"))

    async def jobs(self, occasion: Occasion) -> Sequence[PlannedJob]:
        """See `Action`."""
        recipient, content = self.addressed(occasion), self.content(occasion)
        return [notification(occasion, self.channel, self.priority, occasion.id(), recipient, content)]


def notification(
    occasion: Occasion,
    channel: str,
    priority: Priority,
    notification_id: str,
    recipient: Mapping[str, str],
    content: Mapping[str, Any],
    **metadata: str,
) -> PlannedJob:
    """Return the job of one notification that an event has caused."""
    origin = occasion.origin() | metadata
    job = notification_job(occasion.event.tenant_id, channel, priority, notification_id, recipient, content, origin)
    return PlannedJob(channel, job)
