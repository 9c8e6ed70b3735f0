"""What a notification job says, and what its result says back (docs/reference/notification-job.schema.json).

Lenient where a producer may be ahead of us (unknown fields are ignored), strict where a mistake would reach a person:
identifiers are non-empty strings and an address is one bare address.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import email_validator
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from worker_runtime.settings.queues import ChannelName  # noqa: TC001  pydantic reads annotations

__all__ = ["Attachment", "Content", "DeliveryResult", "Notification", "Priority", "Recipient", "schema"]

# Whether example.test, host.local or localhost can receive mail is the mail server's to say, not a syntax rule.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()

MOST_ATTACHMENTS = 50


def bare_address(value: str) -> str:
    """Return `value` as it goes on the wire (an international domain as ASCII); refuse all but one bare address.

    A display name, a list of addresses, a line break or a source route is refused: mail libraries would take such a
    string for some other address than the one the producer meant.
    """
    try:
        address = email_validator.validate_email(value, check_deliverability=False, globally_deliverable=False)
    except email_validator.EmailNotValidError:
        # The library's own sentence quotes the address, and this one ends in failedReason.
        raise PydanticCustomError("email", "is not one bare e-mail address such as ada@example.com") from None
    return address.ascii_email or address.normalized


def in_utc(moment: datetime) -> datetime:
    """Read a time without an offset as UTC, which is what a producer that leaves it out means."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


Identifier = Annotated[str, StringConstraints(min_length=1)]
EmailAddress = Annotated[str, AfterValidator(bare_address), Field(json_schema_extra={"format": "idn-email"})]
Moment = Annotated[datetime, AfterValidator(in_utc)]


class Priority(StrEnum):
    """How the producer queued it; the queue, not this worker, acts on it."""

    LOW = "LOW"
    NORMAL = "NORMAL"
    HIGH = "HIGH"
    URGENT = "URGENT"


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Recipient(_Wire):
    """Who gets it: the one field that the notification's channel needs must be there."""

    id: Identifier | None = None
    email: EmailAddress | None = None
    phone: str | None = None
    webhook_url: str | None = None


class Attachment(_Wire):
    """A file that goes with an e-mail. It stays in the object store (`STORAGE_URL`) and is named here."""

    filename: Identifier = Field(max_length=255, description="As the recipient sees it.")
    content_type: str | None = Field(
        None,
        max_length=100,
        pattern=r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+$",
        description="By default its name's.",
    )
    storage_key: Identifier | None = Field(None, description="Its key in the object store; or else url.")
    url: Identifier | None = Field(None, description="Its URL under STORAGE_URL; nothing is fetched from the web.")
    inline: bool = Field(default=False, description="Shown in htmlBody, as cid: and its contentId.")
    content_id: str | None = Field(None, pattern=r"^[A-Za-z0-9._+-]{1,100}(@[A-Za-z0-9.-]{1,100})?$")


class Content(_Wire):
    """What it says. A template, when named, wins over subject, body and htmlBody, which are used literally."""

    subject: str | None = None
    body: str | None = Field(default=None, description="Plain text; required unless templateId is given.")
    html_body: str | None = None
    template_id: Identifier | None = None
    template_data: dict[str, Any] | None = None
    attachments: list[Attachment] | None = Field(
        default=None, max_length=MOST_ATTACHMENTS, description="Only for e-mail; other channels send none."
    )


class Notification(_Wire):
    """The payload of a job on one of the `notifications:*` queues."""

    notification_id: Identifier = Field(description="One id, one delivery: a second job with it sends nothing.")
    tenant_id: Identifier
    channel: ChannelName
    priority: Priority | None = None
    recipient: Recipient
    content: Content
    metadata: dict[str, Any] | None = Field(
        default=None, description="category marketing: bulk mail, with a link for unsubscribing."
    )
    scheduled_at: Moment | None = Field(default=None, description="Not sent before this time.")
    expires_at: Moment | None = Field(
        default=None, description="Not sent from this time on: the job completes as expired."
    )

    @property
    def is_bulk(self) -> bool:
        """Whether many people get the like, and missing it harms nobody: `metadata.category` is `marketing`."""
        return (self.metadata or {}).get("category") == "marketing"


class DeliveryResult(_Wire):
    """The job's `returnvalue`. `success` is true only when a provider accepted the message."""

    notification_id: str
    channel: ChannelName
    success: bool
    provider_message_id: str | None = None
    delivered_at: datetime = Field(description="When a provider accepted it; without success, when that was decided.")
    delivery_time_ms: int = Field(description="Milliseconds the provider took.")
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object, without the fields that have no value."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def schema() -> str:
    """Return the payload's JSON Schema as it is published for producers."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Notification.model_json_schema(by_alias=True),
        "description": "The data of a job on intelliflow:notifications:email, :sms or :webhook.",
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema())
