"""Jobs for the notifications-worker, as rules and workflows ask for them under `notify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from worker_runtime.bullmq.producer import NewJob
from worker_runtime.expressions import Expression, Text
from worker_runtime.settings.queues import ADDRESSEES, ChannelName
from worker_runtime.telemetry import inject

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NotificationFields", "Priority", "Speaking", "notification_job", "placed"]

# BullMQ serves what has no priority before any that has one, and 1 before 100.
LOW_PRIORITY = 100

Name = Annotated[str, StringConstraints(min_length=1)]
Priority = Literal["LOW", "NORMAL", "HIGH", "URGENT"]
E = TypeVar("E", bound=Expression)
T = TypeVar("T", bound=Text)


class Speaking(Protocol):
    """Whoever has what expressions speak of. Both methods raise an error of their own, which names the place."""

    def value(self, place: str, expression: Expression | Text, /) -> Any:
        """Return the value, which is JSON; a field it needs must be there."""
        ...

    def text(self, place: str, expression: Expression, /) -> str:
        """Return the value, which must be a text that says something."""
        ...


class NotificationFields(BaseModel, Generic[E, T]):
    """What a person writes under `notify`. `E` and `T` are expressions and texts over what there is to speak of."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    channel: ChannelName
    priority: Priority = "NORMAL"
    recipient: dict[Literal["id", "email", "phone", "webhookUrl"], E]
    template: Name | None = None
    data: dict[str, E] = Field(default_factory=dict)
    subject: T | None = None
    body: T | None = None

    @model_validator(mode="after")
    def _says_something_to_somebody(self) -> NotificationFields[E, T]:
        if ADDRESSEES[self.channel] not in self.recipient:
            raise ValueError(f"recipient.{ADDRESSEES[self.channel]} is missing, {self.channel} needs it")
        if (self.template is None) == (self.body is None):
            raise ValueError("needs either template (with data) or body (with subject)")
        if self.body is not None and self.data:
            raise ValueError("data is for a template; a body has its expressions in the text")
        return self

    def addressed(self, speaking: Speaking) -> dict[str, str]:
        """Return the recipient of one notification."""
        return {field: speaking.text(f"recipient.{field}", source) for field, source in self.recipient.items()}

    def content(self, speaking: Speaking) -> dict[str, Any]:
        """Return what one notification says."""
        texts = {"subject": self.subject, "body": self.body}
        content: dict[str, Any] = {key: speaking.value(key, text) for key, text in texts.items() if text is not None}
        if self.template is not None:
            data = {key: speaking.value(f"data.{key}", source) for key, source in self.data.items()}
            content |= {"templateId": self.template, "templateData": data}
        return content


def notification_job(
    tenant_id: str,
    channel: str,
    priority: Priority,
    notification_id: str,
    recipient: Mapping[str, str],
    content: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> NewJob:
    """Return the job of one notification, as docs/reference/notification-job.schema.json describes it."""
    data = {
        "notificationId": notification_id,
        "tenantId": tenant_id,
        "channel": channel,
        "priority": priority,
        "recipient": recipient,
        "content": content,
        "metadata": metadata,
    }
    return placed(channel.lower(), data, notification_id, priority)


def placed(name: str, data: Mapping[str, Any], job_id: str, priority: Priority) -> NewJob:
    """Return a job that is part of the trace at hand, placed by its priority."""
    return NewJob(
        name=name,
        data=data,
        job_id=job_id,
        priority=LOW_PRIORITY if priority == "LOW" else 0,
        lifo=priority == "URGENT",
        options={"tm": carrier} if (carrier := inject()) else {},
    )
