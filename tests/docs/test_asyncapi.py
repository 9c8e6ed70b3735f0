"""The AsyncAPI document keeps AsyncAPI's own schema, leads nowhere in vain and says what the contracts say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

from events_worker.contracts import SHIPPED, load_catalogue
from events_worker.contracts.asyncapi import asyncapi
from interop.node_packages import node_packages

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCUMENT = yaml.safe_load((ROOT / "docs" / "events" / "asyncapi.yaml").read_text())
SAMPLE = ROOT / "tests" / "contracts_sample.yaml"
LEAD = {
    "eventId": "e-1",
    "eventType": "lead.created",
    "aggregateType": "Lead",
    "aggregateId": "l-1",
    "tenantId": "t-1",
    "payload": {"leadId": "l-1", "email": "ada@example.com", "tenantId": "t-1"},
    "metadata": {"correlationId": "c-1", "timestamp": "2026-01-01T10:00:00Z", "version": "1.0"},
    "occurredAt": "2026-01-01T10:00:00Z",
}


@pytest.mark.needs("node", "npm")
@pytest.mark.parametrize("path", [SHIPPED, SAMPLE], ids=["shipped", "sample"])
def test_it_keeps_the_schema_of_the_specification(path: Path) -> None:
    folder = node_packages() / "node_modules" / "@asyncapi" / "specs" / "schemas"
    schema = json.loads((folder / "3.0.0.json").read_text())
    assert schema["$id"]
    validator = Draft7Validator(schema)
    document = asyncapi(load_catalogue(path))
    assert [error.message for error in validator.iter_errors(document)] == []
    assert not validator.is_valid(document | {"info": {}})


def test_every_reference_leads_somewhere() -> None:
    refs = list(references(DOCUMENT))
    assert len(refs) > 100
    for ref in refs:
        target = DOCUMENT
        for part in ref.removeprefix("#/").split("/"):
            assert part in target, ref
            target = target[part]


def test_every_event_is_a_message_of_the_channel_and_of_its_family_s_operation() -> None:
    events = set(load_catalogue().events)
    assert set(DOCUMENT["channels"]["events"]["messages"]) == events
    received = [operation for operation in DOCUMENT["operations"].values() if operation["action"] == "receive"]
    assert sorted(ref["$ref"] for operation in received for ref in operation["messages"]) == sorted(
        f"#/channels/events/messages/{event_type}" for event_type in events
    )


def test_older_versions_are_messages_of_their_own() -> None:
    messages = asyncapi(load_catalogue(SAMPLE))["components"]["messages"]
    assert [key for key in messages if key.startswith("deal.")] == [
        "deal.signed",
        "deal.signed-2.1",
        "deal.signed-2.0",
        "deal.signed-1.0",
    ]
    assert messages["deal.signed-1.0"]["title"] == "deal.signed 1.0"
    assert messages["deal.signed"]["x-on-dead-letter"] == "block"


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"payload": {"leadId": "l-1"}}, False),
        ({"eventType": "lead.updated"}, False),
        ({"eventId": 5}, False),
    ],
)
def test_a_message_s_schema_says_what_a_job_of_the_queue_is(change: dict[str, Any], valid: bool) -> None:  # noqa: FBT001
    registry = Registry().with_resource("urn:asyncapi", DRAFT7.create_resource(DOCUMENT))
    schema = {"$ref": "urn:asyncapi#/components/messages/lead.created/payload"}
    assert Draft202012Validator(schema, registry=registry).is_valid(LEAD | change) is valid


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)
