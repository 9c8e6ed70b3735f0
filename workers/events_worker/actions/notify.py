"""`notify`: a message to one person, over a channel of the notifications-worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from events_worker.actions.action import Action, ExpressionField, Name, Priority, TextField
from worker_runtime.settings.queues import ADDRESSEES, ChannelName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from events_worker.actions.action import Occasion
    from events_worker.effects import PlannedJob


class Notify(Action):
    """One job on the channel's queue; its id is that of (event, rule)."""

    channel: ChannelName
    priority: Priority = "NORMAL"
    recipient: dict[Literal["id", "email", "phone", "webhookUrl"], ExpressionField]
    template: Name | None = None
    data: dict[str, ExpressionField] = Field(default_factory=dict)
    subject: TextField | None = None
    body: TextField | None = None

    @model_validator(mode="after")
    def _says_something_to_somebody(self) -> Notify:
        if ADDRESSEES[self.channel] not in self.recipient:
            raise ValueError(f"recipient.{ADDRESSEES[self.channel]} is missing, {self.channel} needs it")
        if (self.template is None) == (self.body is None):
            raise ValueError("needs either template (with data) or body (with subject)")
        if self.body is not None and self.data:
            raise ValueError("data is for a template; a body has its expressions in the text")
        return self

    @classmethod
    def queue_of(cls, written: Mapping[str, Any], /) -> str:
        """See `Action`."""
        return str(written.get("channel"))

    async def effects(self, occasion: Occasion) -> Sequence[PlannedJob]:
        """See `Action`."""
        recipient: dict[str, str] = {
            field: occasion.text(f"recipient.{field}", source) for field, source in self.recipient.items()
        }
        content = self._content(occasion)
        return [notification(occasion, self.channel, self.priority, occasion.id(), recipient, content)]

    def _content(self, occasion: Occasion) -> dict[str, Any]:
        texts = {"subject": self.subject, "body": self.body}
        content: dict[str, Any] = {key: occasion.value(key, text) for key, text in texts.items() if text is not None}
        if self.template is not None:
            data = {key: occasion.value(f"data.{key}", source) for key, source in self.data.items()}
            content |= {"templateId": self.template, "templateData": data}
        return content


def notification(
    occasion: Occasion,
    channel: str,
    priority: Priority,
    notification_id: str,
    recipient: Mapping[str, str],
    content: Mapping[str, Any],
    **metadata: str,
) -> PlannedJob:
    """Return the job of one notification, as docs/reference/notification-job.schema.json describes it."""
    data = {
        "notificationId": notification_id,
        "tenantId": occasion.event.tenant_id,
        "channel": channel,
        "priority": priority,
        "recipient": recipient,
        "content": content,
        "metadata": occasion.origin() | metadata,
    }
    return occasion.planned(channel, channel.lower(), data, notification_id, priority)
