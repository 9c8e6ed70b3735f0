from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from events_worker.contracts import SHIPPED, Accepted, Contracts, Violation, load_catalogue, load_contracts
from events_worker.contracts.acceptance import acceptance
from payload_strategies import wild
from worker_runtime.yaml_source import SourceError

LEAD = {"leadId": "l-1", "email": "ada@example.com", "tenantId": "t-1"}
SAMPLE = Path(__file__).parents[1] / "contracts_sample.yaml"
FAMILIES = {"lead", "contact", "opportunity", "account", "task", "document", "notification", "ai", "webhook"}
SCHEMAS = [
    release.schema
    for path in (SHIPPED, SAMPLE)
    for contract in load_catalogue(path).events.values()
    for release in contract.releases()
]


def read(contracts: Contracts, payload: dict[str, Any], version: str = "1.0") -> str | None:
    """What is wrong with a lead."""
    match contracts.read("lead.created", version, payload):
        case Violation("INVALID_PAYLOAD", sentence):
            return sentence
        case verdict:
            assert verdict == Accepted(version, payload)
            return None


@pytest.mark.parametrize(
    ("changes", "violation"),
    [
        ({}, None),
        ({"source": "a fair in Oslo", "firstName": None, "score": "high", "anything": [1]}, None),
        ({"email": ...}, "email is missing"),
        ({"email": None}, "email must be a string"),
        ({"email": ""}, "email must not be empty"),
        ({"leadId": 5}, "leadId must be a string"),
        ({"leadId": ..., "tenantId": ""}, "leadId is missing; tenantId must not be empty"),
        ({"source": {"a": "secret"}}, "source must be a string or null"),
        ({"ownerId": ""}, "ownerId must not be empty"),
    ],
)
def test_lead_created(changes: dict[str, Any], violation: str | None) -> None:
    payload = {field: value for field, value in (LEAD | changes).items() if value is not ...}
    assert read(load_contracts(), payload) == violation


def test_lead_created_requires_no_more_than_it_must() -> None:
    assert load_catalogue().events["lead.created"].json_schema["required"] == ["leadId", "email", "tenantId"]


def test_an_unknown_type_promises_nothing() -> None:
    contracts = load_contracts()
    assert not contracts.knows("invoice.paid")
    assert not contracts.blocks("invoice.paid")
    assert contracts.read("invoice.paid", "whatever", {"whatever": 1}) == Accepted("whatever", {"whatever": 1})


def test_the_violation_of_an_inner_field_says_where_and_no_value(tmp_path: Path) -> None:
    contracts = load_contracts(
        written(
            tmp_path,
            """
            type: object
            required: [owner]
            properties:
              owner: {type: object, required: [id], properties: {kind: {enum: [user, team]}, level: {maximum: 3}}}
              flags: {additionalProperties: {type: boolean}}
              lines: {items: {type: string, pattern: "^[a-z]+$"}}
            """,
        )
    )
    payload = {"owner": {"kind": "secret", "level": 4}, "flags": {"ada@example.com": "no"}, "lines": ["ok", "Ada"]}
    assert read(contracts, payload) == (
        "flags.* must be true or false; lines.1 must match ^[a-z]+$; owner.id is missing; "
        "owner.kind must be one of user, team; owner.level must be at most 3"
    )


def test_the_shipped_catalogue_is_in_the_documentation_and_has_every_family() -> None:
    assert SHIPPED.resolve().parts[-3:] == ("docs", "events", "contracts-v1.yaml")
    events = load_catalogue().events
    assert {event_type.split(".")[0] for event_type in events} == FAMILIES
    for event_type, contract in events.items():
        assert contract.idempotency_key.startswith(f"{event_type}:")
        assert contract.description.endswith(".")


def test_every_shipped_event_names_its_tenant_and_ids_are_non_empty_texts() -> None:
    for event_type, contract in load_catalogue().events.items():
        fields = contract.json_schema["properties"]
        assert "tenantId" in contract.json_schema["required"], event_type
        for name in (name for name in fields if name.endswith("Id")):
            assert fields[name]["minLength"] == 1, f"{event_type}: {name}"
            kinds = "string" if name in contract.json_schema["required"] else ["string", "null"]
            assert fields[name]["type"] == kinds, f"{event_type}: {name}"


def test_a_dead_letter_holds_back_its_aggregate_only_where_the_contract_says_so() -> None:
    contracts = load_contracts(SAMPLE)
    assert contracts.blocks("deal.signed")
    assert not contracts.blocks("all.keywords")
    assert not load_contracts().blocks("lead.created")


@given(st.data())
def test_a_quick_yes_is_only_said_of_valid_payloads(data: st.DataObject) -> None:
    schema = data.draw(st.sampled_from(SCHEMAS))
    payload = data.draw(wild(schema))
    if acceptance(schema)(payload):
        assert Draft202012Validator(schema).is_valid(payload)


def test_a_quick_yes_is_said_of_what_the_shipped_contracts_mostly_see() -> None:
    sure = acceptance(load_catalogue().events["lead.created"].json_schema)
    assert sure(LEAD | {"firstName": None, "score": 3, "utm": {"campaign": "spring"}})
    assert not sure(LEAD | {"firstName": 5})
    assert not sure({"leadId": "l-1"})
    predicted = acceptance(load_catalogue().events["ai.prediction_made"].json_schema)
    for confidence, known in (
        (0, True),
        (0.5, True),
        (1, True),
        (None, True),
        (-0.1, False),
        (1.1, False),
        (True, False),
    ):
        assert predicted({"predictionId": "p-1", "tenantId": "t-1", "confidence": confidence}) is known


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("events: [", ":1: is not YAML"),
        ("events: {}\nmore: 1\n", ":2: more: unknown key"),
        ("events:\n  lead.created: {}\n", ":2: events.lead.created.version: is missing"),
        ("events:\n  lead.created: {}\n", ":2: events.lead.created.description: is missing"),
        ("events:\n  Lead Created: {}\n", ":2: events.Lead Created"),
        ("events:\n  a.b: {}\n  a.b: {}\n", ":3: a.b: is written twice"),
    ],
)
def test_a_mistake_in_the_catalogue_is_told_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    assert f"catalogue.yaml{complaint}" in complaint_about(tmp_path, text)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("idempotencyKey: 'a.b:{id}'", "idempotencyKey: id is not among the required fields"),
        ("schema: {type: objekt}", "schema.type: is not JSON Schema: 'objekt' is not valid"),
        ("onDeadLetter: wait", "onDeadLetter: Input should be 'skip' or 'block'"),
        ("version: '1'", "version: String should match pattern"),
        ("earlier: {'2.0': {schema: {}}}", "earlier.2.0: is not older than 2.0"),
        ("earlier: {'1.0': {schema: {type: objekt}}}", "earlier.1.0.schema.type: is not JSON Schema"),
        ("earlier: {'1.0': {schema: {}, lift: [{rename: a}]}}", "earlier.1.0.lift.0: is no step; there are move, "),
        ("earlier: {'1.0': {schema: {}, lift: [{move: a}]}}", "earlier.1.0.lift.0.move.to: is missing"),
        ("earlier: {'1.0': {schema: {}, lift: [{drop: a..b}]}}", "earlier.1.0.lift.0.drop.drop: String should match"),
        (
            "schema: {required: [a]}\n    earlier: {'1.0': {schema: {required: [b]}}}",
            "earlier.1.0.lift: a is required by 2.0, and no step gives it to every payload",
        ),
        (
            "schema: {required: [a]}\n    earlier: {'1.0': {schema: {required: [a]}, lift: [{drop: a}]}}",
            "earlier.1.0.lift: a is required by 2.0, and no step gives it to every payload",
        ),
    ],
)
def test_a_mistake_in_an_entry_is_told_with_its_place(tmp_path: Path, entry: str, complaint: str) -> None:
    given = [line.split(":")[0].strip() for line in entry.splitlines()]
    rest = {"version": "'2.0'", "description": "Any.", "idempotencyKey": "'a.b:{eventId}'", "schema": "{}"}
    lines = [f"    {key}: {value}" for key, value in rest.items() if key not in given]
    said = complaint_about(tmp_path, "\n".join(["events:", "  a.b:", *lines, f"    {entry}", ""]))
    assert f": events.a.b.{complaint}" in said


def test_a_missing_catalogue_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.yaml: cannot be read: No such file"):
        load_contracts(tmp_path / "none.yaml")


def complaint_about(folder: Path, text: str) -> str:
    path = folder / "catalogue.yaml"
    path.write_text(text)
    with pytest.raises(SourceError) as error:
        load_contracts(path)
    return str(error.value)


def written(folder: Path, schema: str) -> Path:
    path = folder / "contracts.yaml"
    head = "events:\n  lead.created:\n    version: '1.0'\n    description: A lead.\n    idempotencyKey: x\n"
    path.write_text(f"{head}    schema: {schema}\n")
    return path
