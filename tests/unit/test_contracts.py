from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from events_worker.contracts import SHIPPED, load_contracts
from events_worker.yaml_source import SourceError

if TYPE_CHECKING:
    from pathlib import Path

LEAD = {"leadId": "l-1", "email": "ada@example.com", "tenantId": "t-1"}


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
    ],
)
def test_lead_created(changes: dict[str, Any], violation: str | None) -> None:
    payload = {field: value for field, value in (LEAD | changes).items() if value is not ...}
    assert load_contracts().violation("lead.created", payload) == violation


def test_an_unknown_type_promises_nothing() -> None:
    contracts = load_contracts()
    assert not contracts.knows("invoice.paid")
    assert contracts.violation("invoice.paid", {"whatever": 1}) is None


def test_the_violation_of_an_inner_field_says_where_and_no_value(tmp_path: Path) -> None:
    contracts = load_contracts(
        written(
            tmp_path,
            """
            type: object
            required: [owner]
            properties:
              owner: {type: object, required: [id], properties: {kind: {enum: [user, team]}, level: {maximum: 3}}}
            """,
        )
    )
    payload = {"owner": {"kind": "secret", "level": 4}}
    assert contracts.violation("lead.created", payload) == (
        "owner.id is missing; owner.kind must be one of user, team; owner.level breaks the rule maximum: 3"
    )


def test_the_shipped_catalogue_is_in_the_documentation() -> None:
    assert SHIPPED.resolve().parts[-3:] == ("docs", "events", "contracts-v1.yaml")
    assert load_contracts().knows("notification.failed")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("events: [", ":1: is not YAML"),
        ("events: {}\nmore: 1\n", ":2: more: unknown key"),
        ("events:\n  lead.created: {}\n", ":2: events.lead.created.version: is missing"),
        ("events:\n  Lead Created: {}\n", ":2: events.Lead Created"),
        ("events:\n  a.b: {}\n  a.b: {}\n", ":3: a.b: is written twice"),
        (
            "events:\n  a.b:\n    version: '1.0'\n    idempotencyKey: a.b:{id}\n    schema:\n      type: object\n",
            ":4: events.a.b.idempotencyKey: id is not among the required fields",
        ),
        (
            "events:\n  a.b:\n    version: '1.0'\n    idempotencyKey: a.b\n    schema:\n      type: objekt\n",
            ":6: events.a.b.schema.type: is not JSON Schema: 'objekt' is not valid",
        ),
    ],
)
def test_a_mistake_in_the_catalogue_is_told_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "contracts.yaml"
    path.write_text(text)
    with pytest.raises(SourceError) as error:
        load_contracts(path)
    assert f"{path}{complaint}" in str(error.value)


def test_a_missing_catalogue_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.yaml: cannot be read: No such file"):
        load_contracts(tmp_path / "none.yaml")


def written(folder: Path, schema: str) -> Path:
    path = folder / "contracts.yaml"
    path.write_text(f"events:\n  lead.created:\n    version: '1.0'\n    idempotencyKey: x\n    schema: {schema}\n")
    return path
