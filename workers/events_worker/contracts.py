"""What each event type promises: docs/events/contracts-v1.yaml, compiled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from events_worker.yaml_source import Complaint, Source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from jsonschema.exceptions import ValidationError

SHIPPED = Path(__file__).with_name("contracts-v1.yaml")
EVENT_TYPE = r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$"
MOST_VIOLATIONS = 5
NAMES_OF_TYPES = {"array": "a list", "integer": "a whole number", "null": "null", "object": "an object"}


class Contract(BaseModel):
    """One event type's entry in the catalogue."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")]
    description: str = ""
    idempotency_key: str = Field(alias="idempotencyKey", min_length=1)
    on_dead_letter: Literal["skip", "block"] = Field("skip", alias="onDeadLetter")
    json_schema: dict[str, Any] = Field(alias="schema")


class Catalogue(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    events: dict[Annotated[str, StringConstraints(pattern=EVENT_TYPE)], Contract]


class Contracts:
    """The compiled catalogue. Built once at the start, asked for every event."""

    def __init__(self, contracts: Mapping[str, Contract]) -> None:
        self._validators = {
            event_type: Draft202012Validator(contract.json_schema) for event_type, contract in contracts.items()
        }
        self._blocking = {name for name, contract in contracts.items() if contract.on_dead_letter == "block"}

    def blocks(self, event_type: str) -> bool:
        """Tell whether later events of its aggregate wait for a person when one of this type is a dead letter."""
        return event_type in self._blocking

    @property
    def types(self) -> Collection[str]:
        """The event types that have a contract."""
        return self._validators.keys()

    def knows(self, event_type: str) -> bool:
        """Tell whether this type has a contract; one without is accepted as it is."""
        return event_type in self._validators

    def violation(self, event_type: str, payload: Mapping[str, Any]) -> str | None:
        """Say which fields break the contract, without their values; `None` when all is well or nothing is promised."""
        validator = self._validators.get(event_type)
        if validator is None:
            return None
        sentences = list(dict.fromkeys(s for error in validator.iter_errors(payload) for s in _sentences(error)))
        return "; ".join(sorted(sentences)[:MOST_VIOLATIONS]) or None


def load_contracts(path: Path = SHIPPED) -> Contracts:
    """Read and check the catalogue; raises `SourceError` with every mistake and its line."""
    source = Source(path)
    events = source.validated(Catalogue).events
    complaints = [
        complaint for event_type, contract in events.items() for complaint in _complaints(event_type, contract)
    ]
    if complaints:
        raise source.error(complaints)
    return Contracts(events)


def _complaints(event_type: str, contract: Contract) -> Iterator[Complaint]:
    place = ("events", event_type)
    try:
        Draft202012Validator.check_schema(contract.json_schema)
    except SchemaError as error:
        yield Complaint((*place, "schema", *error.absolute_path), f"is not JSON Schema: {error.message}")
        return
    required = contract.json_schema.get("required", [])
    for field in re.findall(r"\{(.*?)\}", contract.idempotency_key):
        if field not in required:
            yield Complaint((*place, "idempotencyKey"), f"{field} is not among the required fields")


def _sentences(error: ValidationError) -> Iterator[str]:
    """Name what is wrong by field only: a value may be somebody's address."""
    field = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "required":
        for name in _listed(error.validator_value):
            if name not in _listed(error.instance):
                yield f"{field}.{name} is missing" if field else f"{name} is missing"
    else:
        yield f"{field or 'the payload'} {_demand(error)}"


def _demand(error: ValidationError) -> str:
    rule, expected = error.validator, error.validator_value
    if rule == "type":
        return "must be " + " or ".join(_name_of_type(kind) for kind in _listed(expected))
    if rule == "enum":
        return "must be one of " + ", ".join(str(value) for value in _listed(expected))
    if rule == "minLength" and expected == 1:
        return "must not be empty"
    return f"breaks the rule {rule}: {expected}"


def _name_of_type(kind: str) -> str:
    return NAMES_OF_TYPES.get(kind, f"a {kind}")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (dict, list)) else [value]
