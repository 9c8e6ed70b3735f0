"""The catalogue as people write it: docs/events/contracts-v1.yaml, read strictly and checked at the start."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from events_worker.contracts.lifting import Step, sure_fields
from events_worker.contracts.versions import Version, written
from worker_runtime.yaml_source import Complaint, Place, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

SHIPPED = Path(__file__).with_name("contracts-v1.yaml")
EVENT_TYPE = r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$"
# What an idempotency key may name beside required fields.
EVENT_ID = "eventId"

Schema = dict[str, Any]
VersionText = Annotated[str, StringConstraints(pattern=r"^(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})$")]


class Earlier(BaseModel):
    """An older version that is still read, and how its payload becomes one of the next version."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    json_schema: Schema = Field(alias="schema")
    lift: tuple[Step, ...] = ()


class Release(NamedTuple):
    """One version of a contract; `lift` leads to the next one and is empty for the newest."""

    version: Version
    schema: Schema
    lift: tuple[Step, ...]


class Contract(BaseModel):
    """One event type's entry. The comment at the head of the file says what each key means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: VersionText
    description: Annotated[str, StringConstraints(min_length=1)]
    idempotency_key: Annotated[str, StringConstraints(min_length=1)] = Field(alias="idempotencyKey")
    on_dead_letter: Literal["skip", "block"] = Field("skip", alias="onDeadLetter")
    json_schema: Schema = Field(alias="schema")
    earlier: dict[VersionText, Earlier] = Field(default_factory=dict)

    def releases(self) -> list[Release]:
        """Return every version, the oldest first and the newest last."""
        older = [Release(written(text), entry.json_schema, entry.lift) for text, entry in self.earlier.items()]
        return [*sorted(older), Release(written(self.version), self.json_schema, ())]


class Catalogue(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    events: dict[Annotated[str, StringConstraints(pattern=EVENT_TYPE)], Contract]


def load_catalogue(path: Path = SHIPPED) -> Catalogue:
    """Read and check a catalogue; raises `SourceError` with every mistake and its line."""
    source = Source(path)
    catalogue = source.validated(Catalogue)
    entries = catalogue.events.items()
    complaints = [complaint for event_type, contract in entries for complaint in _complaints(event_type, contract)]
    if complaints:
        raise source.error(complaints)
    return catalogue


def release_for(releases: list[Release], version: Version) -> Release | None:
    """Return the release by which an event of this version is read, or `None`.

    A minor version only adds optional fields: an event is read as the nearest minor version not above its own, or as
    the lowest there is. So the newest release reads every later one of its major version.
    """
    of_major = [release for release in releases if release.version.major == version.major]
    not_above = [release for release in of_major if release.version <= version]
    return not_above[-1] if not_above else next(iter(of_major), None)


def _complaints(event_type: str, contract: Contract) -> Iterator[Complaint]:
    place = ("events", event_type)
    places: dict[str, Place] = {contract.version: place}
    places |= {text: (*place, "earlier", text) for text in contract.earlier}
    if unusable := [*_bad_schemas(contract, places)]:
        yield from unusable
        return
    yield from _bad_key(contract, place)
    yield from _bad_order(contract, place)
    yield from _gaps(contract, places)


def _bad_schemas(contract: Contract, places: dict[str, Place]) -> Iterator[Complaint]:
    for version, schema, _ in contract.releases():
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            where = (*places[str(version)], "schema", *error.absolute_path)
            yield Complaint(where, f"is not JSON Schema: {error.message}")


def _bad_key(contract: Contract, place: Place) -> Iterator[Complaint]:
    known = {EVENT_ID, *contract.json_schema.get("required", [])}
    for field in re.findall(r"\{(.*?)\}", contract.idempotency_key):
        if field not in known:
            yield Complaint((*place, "idempotencyKey"), f"{field} is not among the required fields")


def _bad_order(contract: Contract, place: Place) -> Iterator[Complaint]:
    for text in contract.earlier:
        if written(text) >= written(contract.version):
            yield Complaint((*place, "earlier", text), f"is not older than {contract.version}")


def _gaps(contract: Contract, places: dict[str, Place]) -> Iterator[Complaint]:
    """Find what a newer version requires and no step makes: every event of the older one would be a dead letter."""
    releases = contract.releases()
    for older, newer in pairwise(releases):
        sure = sure_fields(_required(older.schema), older.lift)
        for path in _required(newer.schema):
            if path not in sure:
                sentence = f"{path} is required by {newer.version}, and no step gives it to every payload"
                yield Complaint((*places[str(older.version)], "lift"), sentence)


def _required(schema: Schema, outer: str = "") -> Iterator[str]:
    """Return the paths of the fields that every valid payload has."""
    for name in schema.get("required", []):
        yield outer + name
        inner = schema.get("properties", {}).get(name, {})
        if isinstance(inner, dict) and inner.get("type") == "object":
            yield from _required(inner, f"{outer}{name}.")
