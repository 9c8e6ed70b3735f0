"""What leaves the system is a CloudEvent in the eyes of the specification's own library."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st

from events_worker.cloudevents import cloud_event
from events_worker.event import EventJob
from payload_strategies import ANYTHING, TEXTS

SOURCE = "https://crm.example.com"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MET = {"correlationId": "c-1", "timestamp": "2026-01-01T10:00:00Z", "version": "1.0"}
FACTS = {
    "eventId": "0d4c9a70-5ad6-4c09-9a2b-6b3c8a0a9d11",
    "eventType": "lead.created",
    "aggregateType": "Lead",
    "aggregateId": "l-1",
    "tenantId": "t-1",
    "payload": {"leadId": "l-1", "name": "Åse 👋"},
    "metadata": MET | {"causationId": "e-0", "traceparent": TRACE, "tracestate": "a=b", "userId": "u-1"},
    "occurredAt": "2026-01-01T10:00:00.123456Z",
    "sequence": 42,
}


def event(**changes: Any) -> EventJob:
    return EventJob.model_validate(FACTS | changes)


def with_metadata(**changes: Any) -> dict[str, Any]:
    return cloud_event(event(metadata=MET | changes), SOURCE)


def test_every_attribute() -> None:
    assert cloud_event(event(), SOURCE) == {
        "specversion": "1.0",
        "id": FACTS["eventId"],
        "source": SOURCE,
        "type": "lead.created",
        "subject": "l-1",
        "time": "2026-01-01T10:00:00.123456Z",
        "datacontenttype": "application/json",
        "dataschema": "urn:intelliflow:event:lead.created:1",
        "partitionkey": "Lead:l-1",
        "sequence": "0000000000000000042",
        "traceparent": TRACE,
        "tracestate": "a=b",
        "tenantid": "t-1",
        "correlationid": "c-1",
        "causationid": "e-0",
        "data": FACTS["payload"],
    }


def test_what_the_event_does_not_have_is_left_out() -> None:
    lacking = cloud_event(event(metadata=MET, sequence=None), SOURCE)
    assert cloud_event(event(), SOURCE).keys() - lacking.keys() == {
        "causationid",
        "sequence",
        "traceparent",
        "tracestate",
    }


@pytest.mark.parametrize(
    ("version", "schema"),
    [
        ("1.7", "urn:intelliflow:event:lead.created:1"),
        ("2.0", "urn:intelliflow:event:lead.created:2"),
        ("latest", None),
    ],
)
def test_another_major_version_is_another_schema(version: str, schema: str | None) -> None:
    assert with_metadata(version=version).get("dataschema") == schema


@pytest.mark.parametrize("parent", ["", "00-abc", 5, None, TRACE + "\r\nx: y"])
def test_a_trace_that_is_none_is_left_out_with_its_state(parent: object) -> None:
    assert not with_metadata(traceparent=parent, tracestate="a=b").keys() & {"traceparent", "tracestate"}


@pytest.mark.parametrize("state", ["", 5, None])
def test_a_trace_needs_no_state(state: object) -> None:
    traced = with_metadata(traceparent=TRACE, tracestate=state)
    assert traced["traceparent"] == TRACE
    assert "tracestate" not in traced


@pytest.mark.parametrize(
    ("occurred", "time"),
    [
        ("2026-01-01T10:00:00", "2026-01-01T10:00:00Z"),
        ("2026-01-01T10:00:00+02:00", "2026-01-01T08:00:00Z"),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z"),
    ],
)
def test_times_have_an_offset(occurred: object, time: str) -> None:
    assert cloud_event(event(occurredAt=occurred), SOURCE)["time"] == time


def test_sequences_are_ordered_as_texts() -> None:
    numbers = [0, 9, 10, 99, 10**12, 2**63 - 1]
    assert (texts := [cloud_event(event(sequence=number), SOURCE)["sequence"] for number in numbers]) == sorted(texts)


@given(
    payload=st.dictionaries(TEXTS, ANYTHING, max_size=4),
    sequence=st.none() | st.integers(0, 2**63 - 1),
    identifier=TEXTS.filter(bool),
    moment=st.datetimes(timezones=st.just(UTC)),
)
def test_the_library_of_the_specification_reads_and_writes_it(
    payload: dict[str, Any], sequence: int | None, identifier: str, moment: datetime
) -> None:
    made = cloud_event(
        event(payload=payload, sequence=sequence, aggregateId=identifier, occurredAt=moment.isoformat()), SOURCE
    )
    assert all(re.fullmatch(r"[a-z0-9]+", name) for name in made)
    body = json.dumps(made).encode()
    read = from_http_event(HTTPMessage({"content-type": "application/cloudevents+json"}, body))
    assert read.get_data() == payload
    assert read.get_attributes() == {name: made[name] for name in made if name != "data"} | {"time": moment}
    assert json.loads(JSONFormat().write(read)) == made
    # As headers, too.
    assert from_http_event(to_binary_event(read)).get_attributes() == read.get_attributes()
