"""`ingest`: a document to be read and made searchable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from events_worker.actions.action import Action, ExpressionField
from worker_runtime.notification_jobs import Priority  # noqa: TC001  pydantic reads annotations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from events_worker.actions.action import Occasion, PlannedJob
    from events_worker.expressions import Expression

QUEUE = "TEXT_EXTRACTION"
OPTIONAL = ("format", "userId", "language")
FIELDS = ("documentId", "sourceUrl", *OPTIONAL)


class IngestOptions(BaseModel):
    """What the ingestion-worker does with the document beside reading it; `None` leaves it its own default."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    preserveFormatting: bool | None = None  # noqa: N815 - as it is written in the file and in the job
    extractMetadata: bool | None = None  # noqa: N815
    generateEmbeddings: bool | None = None  # noqa: N815
    ocr: Literal["auto", "always", "never"] | None = None
    password: ExpressionField | None = None


class Ingest(Action):
    """One job on `text-extraction`. Optional fields that have no value for an event are left out of its job."""

    documentId: ExpressionField  # noqa: N815 - as it is written in the file and in the job
    sourceUrl: ExpressionField  # noqa: N815
    format: ExpressionField | None = None
    userId: ExpressionField | None = None  # noqa: N815
    language: ExpressionField | None = None
    options: IngestOptions = Field(default_factory=IngestOptions)
    priority: Priority = "NORMAL"

    @classmethod
    def queue_of(cls, _written: Mapping[str, Any], /) -> str:
        """See `Action`."""
        return QUEUE

    async def jobs(self, occasion: Occasion) -> Sequence[PlannedJob]:
        """See `Action`."""
        fields = {field: getattr(self, field) for field in FIELDS}
        texts = {field: _text(occasion, field, source) for field, source in fields.items() if source is not None}
        data: dict[str, Any] = {field: text for field, text in texts.items() if text is not None}
        data |= {"tenantId": occasion.event.tenant_id}
        if options := self._options(occasion):
            data["options"] = options
        return [occasion.planned(QUEUE, "text-extraction", data, occasion.id("ingest"), self.priority)]

    def _options(self, occasion: Occasion) -> dict[str, Any]:
        options = self.options.model_dump(exclude={"password"}, exclude_none=True)
        if self.options.password is not None:
            options["password"] = occasion.text("options.password", self.options.password)
        return options


def _text(occasion: Occasion, field: str, source: Expression) -> str | None:
    if field in OPTIONAL and occasion.value(field, source) is None:
        return None
    return occasion.text(field, source)
