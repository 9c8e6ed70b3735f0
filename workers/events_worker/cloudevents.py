"""CloudEvents 1.0: the envelope of events that leave the system."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from events_worker.contracts.versions import parsed

if TYPE_CHECKING:
    from events_worker.event import EventJob

# As many digits as PostgreSQL's bigint has: the `sequence` extension is compared as text.
SEQUENCE_DIGITS = 19
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def cloud_event(event: EventJob, source: str) -> dict[str, Any]:
    """Return the event in CloudEvents' JSON format (`application/cloudevents+json`).

    `source` is a URI reference that names the sender, `https://crm.example.com` say; with `id` it is what a receiver
    recognises a repetition by. `sequence` orders the events of one `partitionkey`, as text. What an event does not
    have is left out.
    """
    metadata = event.metadata
    attributes = {
        "specversion": "1.0",
        "id": event.event_id,
        "source": source,
        "type": event.event_type,
        "subject": event.aggregate_id,
        "time": _timestamp(event.occurred_at),
        "datacontenttype": "application/json",
        "dataschema": dataschema(event.event_type, metadata.version),
        "partitionkey": f"{event.aggregate_type}:{event.aggregate_id}",
        "sequence": None if event.sequence is None else f"{event.sequence:0{SEQUENCE_DIGITS}}",
        "tenantid": event.tenant_id,
        "correlationid": metadata.correlation_id,
        "causationid": metadata.causation_id,
        **_trace(metadata.model_extra or {}),
    }
    return {name: value for name, value in attributes.items() if value is not None} | {"data": event.payload}


def dataschema(event_type: str, version: str) -> str | None:
    """Return the URI of a payload's schema: another one for every major version; `None` for what is no version."""
    known = parsed(version)
    return f"urn:intelliflow:event:{event_type}:{known.major}" if known else None


def _timestamp(moment: datetime) -> str:
    """Write RFC 3339, which wants an offset; a producer who gives none means UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return aware.isoformat().replace("+00:00", "Z")


def _trace(extra: dict[str, Any]) -> dict[str, Any]:
    """Return the tracing extension; without a well-formed `traceparent` a `tracestate` means nothing."""
    parent, state = extra.get("traceparent"), extra.get("tracestate")
    if not isinstance(parent, str) or not TRACEPARENT.fullmatch(parent):
        return {}
    return {"traceparent": parent, "tracestate": state if isinstance(state, str) and state else None}
