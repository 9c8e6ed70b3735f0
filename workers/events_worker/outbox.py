"""The outbox's rules: what becomes of a row. Nothing here asks a clock, a database or a queue."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from events_worker.event import replayed_id
from worker_runtime.bullmq.producer import NewJob

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from events_worker.event import Replay

FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 1.0
MOST_DOUBLINGS = 10
TRACE_FIELDS = ("traceparent", "tracestate")
# `dumps` would make an encoder for each event.
to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class OutboxEvent(NamedTuple):
    """A row to publish. `payload` is its JSON text, `None` when it is larger than was asked for; sizes are in bytes.

    `created_at` is ISO-8601 in UTC. `again` says that it may have been published before.
    """

    id: str
    event_type: str
    aggregate_type: str
    aggregate_id: str
    tenant_id: str
    payload: str | None
    payload_size: int
    metadata: str
    created_at: str | None
    sequence: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class Unpublishable:
    """A row that no number of attempts can publish: a dead letter of the outbox. `reason` holds no personal data."""

    event_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What to do with the rows of one poll, in their order."""

    jobs: Sequence[NewJob]
    unpublishable: Sequence[Unpublishable]


def sort_out(events: Sequence[OutboxEvent], max_job_bytes: int) -> Batch:
    """Turn rows into jobs, and set aside those that can never be one."""
    verdicts = [_publication(event, max_job_bytes) for event in events]
    return Batch(
        jobs=[verdict for verdict in verdicts if isinstance(verdict, NewJob)],
        unpublishable=[verdict for verdict in verdicts if isinstance(verdict, Unpublishable)],
    )


def _publication(event: OutboxEvent, max_job_bytes: int) -> NewJob | Unpublishable:
    try:
        return publication(event, max_job_bytes)
    except Exception as error:  # noqa: BLE001  one row nobody foresaw must not hold up all that follow
        return Unpublishable(event.id, f"INVALID_EVENT: it cannot be written as a job ({type(error).__name__})")


def publication(event: OutboxEvent, max_job_bytes: int, replay: Replay | None = None) -> NewJob | Unpublishable:
    """Return the job of one event. Its id is the event's, so that publishing twice makes one job.

    A replay's jobs have ids of their own, so that they are new ones, and made twice by the same replay still one.
    """
    if not event.event_type.strip():
        return Unpublishable(event.id, "INVALID_EVENT: event_type is empty")
    metadata = _metadata(event)
    if metadata is None:
        return Unpublishable(event.id, "INVALID_EVENT: metadata is not a JSON object of sane depth")
    if event.payload is None:
        return _too_large(event, event.payload_size, max_job_bytes)
    body = _envelope(event, metadata, event.payload, replay)
    if len(body) > max_job_bytes:
        return _too_large(event, len(body), max_job_bytes)
    job_id = replayed_id(replay.id, event.id) if replay else event.id
    return NewJob(name=event.event_type, data=body, job_id=job_id, options=_trace_options(metadata))


def backoff_seconds(failures_in_a_row: int) -> float:
    """Return how long to wait for a server that is gone: doubling, and short enough to notice its return."""
    return min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures_in_a_row - 1, MOST_DOUBLINGS))


def _metadata(event: OutboxEvent) -> dict[str, Any] | None:
    try:
        given = json.loads(event.metadata)
    except (RecursionError, ValueError):
        # jsonb holds what Python does not read: numbers of ten thousand digits, say.
        return None
    if not isinstance(given, dict | None):
        return None
    defaults = {"correlationId": event.id, "timestamp": event.created_at, "version": "1.0"}
    return defaults | {field: value for field, value in (given or {}).items() if value is not None}


def _envelope(event: OutboxEvent, metadata: Mapping[str, Any], payload: str, replay: Replay | None) -> bytes:
    head: dict[str, Any] = {
        "eventId": event.id,
        "eventType": event.event_type,
        "aggregateType": event.aggregate_type,
        "aggregateId": event.aggregate_id,
        "tenantId": event.tenant_id,
        "metadata": metadata,
        "occurredAt": event.created_at,
        "sequence": event.sequence,
    }
    if replay is not None:
        head["replay"] = replay.model_dump(mode="json")
    # The payload is spliced in as text: parsing would round numbers that only jsonb holds exactly.
    opened = to_json(head).removesuffix("}")
    return f'{opened},"payload":{payload}}}'.encode()


def _trace_options(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    context = {field: metadata[field] for field in TRACE_FIELDS if isinstance(metadata.get(field), str)}
    return {"tm": json.dumps(context)} if "traceparent" in context else {}


def _too_large(event: OutboxEvent, size: int, limit: int) -> Unpublishable:
    return Unpublishable(
        event.id, f"PAYLOAD_TOO_LARGE: the event has {size} bytes, QUEUE_MAX_PAYLOAD_BYTES allows {limit}"
    )
