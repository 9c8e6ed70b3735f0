from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from events_worker.event import EventJob
from events_worker.outbox import OutboxEvent, Unpublishable, backoff_seconds, publication, sort_out
from worker_runtime.bullmq.names import refuse_job_id
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.event_patterns import matches

LIMIT = 10_000
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def event(**changes: Any) -> OutboxEvent:
    row: dict[str, Any] = {
        "id": str(uuid4()),
        "event_type": "lead.created",
        "aggregate_type": "lead",
        "aggregate_id": "lead-1",
        "tenant_id": "tenant-1",
        "payload": '{"leadId": "lead-1"}',
        "payload_size": 20,
        "metadata": "{}",
        "created_at": "2026-01-01T10:00:00.000000Z",
        "sequence": 7,
    }
    return OutboxEvent(**(row | changes))


def published(row: OutboxEvent) -> NewJob:
    job = publication(row, LIMIT)
    assert isinstance(job, NewJob)
    return job


def body_of(row: OutboxEvent) -> dict[str, Any]:
    return dict(json.loads(published(row).data))


def test_a_row_becomes_a_job_whose_id_is_the_events() -> None:
    row = event()
    job = published(row)
    assert (job.name, job.job_id) == ("lead.created", row.id)
    assert refuse_job_id(row.id) is None
    assert json.loads(job.data) == {
        "eventId": row.id,
        "eventType": "lead.created",
        "aggregateType": "lead",
        "aggregateId": "lead-1",
        "tenantId": "tenant-1",
        "payload": {"leadId": "lead-1"},
        "metadata": {"correlationId": row.id, "timestamp": row.created_at, "version": "1.0"},
        "occurredAt": row.created_at,
        "sequence": 7,
    }


@given(
    payload=st.dictionaries(st.text(), json_values, max_size=4),
    metadata=st.none() | st.dictionaries(st.text(), json_values, max_size=4),
    names=st.lists(st.text(min_size=1).filter(str.strip), min_size=4, max_size=4),
)
def test_whatever_a_writer_commits_arrives_as_it_was(
    payload: dict[str, Any], metadata: dict[str, Any] | None, names: list[str]
) -> None:
    event_type, aggregate_type, aggregate_id, tenant_id = names
    row = event(
        event_type=event_type,
        aggregate_type=aggregate_type,
        aggregate_id=aggregate_id,
        tenant_id=tenant_id,
        payload=json.dumps(payload),
        metadata=json.dumps(metadata),
    )
    job = publication(row, 10_000_000)
    assert isinstance(job, NewJob)
    body = json.loads(job.data)
    assert body["payload"] == payload
    assert [body["eventType"], body["aggregateType"], body["aggregateId"], body["tenantId"]] == names
    given_fields = {field: value for field, value in (metadata or {}).items() if value is not None}
    assert body["metadata"].items() >= given_fields.items()


def test_numbers_that_only_jsonb_holds_exactly_survive() -> None:
    exact = '{"amount": 12345678901234567890.123456789, "huge": 1' + "0" * 400 + "}"
    assert exact.encode() in published(event(payload=exact)).data


def test_the_job_of_a_bare_row_is_a_valid_event() -> None:
    job = EventJob.model_validate_json(published(event(metadata="null")).data)
    assert job.sequence == 7
    assert job.metadata.version == "1.0"


def test_the_writers_metadata_wins_and_its_nulls_do_not() -> None:
    metadata = body_of(event(metadata='{"correlationId": "c-1", "version": null, "userId": "u-1"}'))["metadata"]
    assert metadata == {
        "correlationId": "c-1",
        "timestamp": "2026-01-01T10:00:00.000000Z",
        "version": "1.0",
        "userId": "u-1",
    }


def test_the_trace_context_crosses_the_queue() -> None:
    job = published(event(metadata=json.dumps({"traceparent": TRACEPARENT})))
    assert json.loads(job.options["tm"]) == {"traceparent": TRACEPARENT}
    assert not published(event(metadata='{"traceparent": 5}')).options


def test_rows_that_can_never_be_published_say_why() -> None:
    assert reason(event(event_type="  ")) == "INVALID_EVENT: event_type is empty"
    assert reason(event(metadata="[1]")) == "INVALID_EVENT: metadata is not a JSON object of sane depth"
    assert reason(event(metadata="[" * 100_000 + "]" * 100_000)).startswith("INVALID_EVENT: metadata")
    assert reason(event(payload=None, payload_size=3_000_000)) == (
        "PAYLOAD_TOO_LARGE: the event has 3000000 bytes, QUEUE_MAX_PAYLOAD_BYTES allows 10000"
    )
    assert reason(event(payload=json.dumps("x" * (LIMIT - 10)))).startswith("PAYLOAD_TOO_LARGE")


def reason(row: OutboxEvent) -> str:
    verdict = publication(row, LIMIT)
    assert isinstance(verdict, Unpublishable)
    assert verdict.event_id == row.id
    return verdict.reason


def test_a_bad_row_does_not_hold_up_its_neighbours() -> None:
    rows = [event(), event(event_type=""), event()]
    batch = sort_out(rows, LIMIT)
    assert [job.job_id for job in batch.jobs] == [rows[0].id, rows[2].id]
    assert [verdict.event_id for verdict in batch.unpublishable] == [rows[1].id]


def test_the_wait_for_a_server_doubles_up_to_a_second() -> None:
    assert [backoff_seconds(failures) for failures in range(1, 7)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff_seconds(1_000_000) == 1.0


def test_patterns() -> None:
    assert matches("lead.created", "lead.created")
    assert not matches("lead.created", "lead.created2")
    assert matches("lead.*", "lead.created")
    assert not matches("lead.*", "leads.created")
    assert not matches("lead.*", "lead")
    assert matches("*", "anything")
