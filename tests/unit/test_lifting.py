from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from events_worker.contracts import SHIPPED, Accepted, Violation, load_catalogue, load_contracts
from events_worker.contracts.lifting import Step, lifted, sure_fields
from events_worker.event import EventJob
from payload_strategies import valid

SAMPLE = Path(__file__).parents[1] / "contracts_sample.yaml"
SIGNED = {"dealId": "7", "owner": {"id": "u-1", "kind": "user"}, "amount": {"value": 9.5}, "state": "won", "tags": []}
# Every version of every event that has more than one, of both catalogues.
RELEASES = [
    (path, event_type, release)
    for path in (SHIPPED, SAMPLE)
    for event_type, contract in load_catalogue(path).events.items()
    for release in contract.releases()
    if contract.earlier
]


def steps(*written: dict[str, Any]) -> tuple[Step, ...]:
    return TypeAdapter(tuple[Step, ...]).validate_python(written)


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        ({"move": "a", "to": "b"}, {"a": 1}, {"b": 1}),
        ({"move": "a", "to": "b"}, {"c": 1}, {"c": 1}),
        ({"move": "a", "to": "b"}, {"a": None}, {"b": None}),
        ({"move": "a", "to": "b"}, {"a": 1, "b": 2}, {"b": 2}),
        ({"move": "a.b", "to": "c.d"}, {"a": {"b": 1, "x": 2}}, {"a": {"x": 2}, "c": {"d": 1}}),
        ({"move": "a.b", "to": "c"}, {"a": "text"}, {"a": "text"}),
        ({"move": "a", "to": "a.value"}, {"a": 5}, {"a": {"value": 5}}),
        ({"move": "a", "to": "b.c"}, {"a": 5, "b": "text"}, {"a": 5, "b": "text"}),
        ({"move": "a", "to": "b.c"}, {"a": 5, "b": None}, {"b": {"c": 5}}),
        ({"default": "a", "value": 5}, {}, {"a": 5}),
        ({"default": "a", "value": 5}, {"a": None}, {"a": 5}),
        ({"default": "a", "value": 5}, {"a": 0}, {"a": 0}),
        ({"default": "a.b", "value": 5}, {}, {"a": {"b": 5}}),
        ({"default": "a.b", "value": 5}, {"a": 1}, {"a": 1}),
        ({"map": "a", "values": {"X": "x"}}, {"a": "X"}, {"a": "x"}),
        ({"map": "a", "values": {"X": "x"}}, {"a": "Y"}, {"a": "Y"}),
        ({"map": "a", "values": {"1": "x"}}, {"a": 1}, {"a": 1}),
        ({"map": "a", "values": {"yes": True}}, {"a": "yes"}, {"a": True}),
        ({"convert": "a", "to": "string"}, {"a": 5}, {"a": "5"}),
        ({"convert": "a", "to": "string"}, {"a": True}, {"a": "true"}),
        ({"convert": "a", "to": "string"}, {"a": [1]}, {"a": [1]}),
        ({"convert": "a", "to": "number"}, {"a": "-1.5e2"}, {"a": -150.0}),
        ({"convert": "a", "to": "number"}, {"a": "12"}, {"a": 12}),
        ({"convert": "a", "to": "number"}, {"a": "twelve"}, {"a": "twelve"}),
        ({"convert": "a", "to": "number"}, {"a": "1e999"}, {"a": "1e999"}),
        ({"convert": "a", "to": "number"}, {"a": "9" * 10_000}, {"a": "9" * 10_000}),
        ({"convert": "a", "to": "number"}, {"a": None}, {"a": None}),
        ({"convert": "a", "to": "list"}, {"a": "x"}, {"a": ["x"]}),
        ({"convert": "a", "to": "list"}, {"a": ["x"]}, {"a": ["x"]}),
        ({"convert": "a", "to": "list"}, {"a": None}, {"a": None}),
        ({"drop": "a.b"}, {"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}),
        ({"drop": "a"}, {}, {}),
    ],
)
def test_a_step(step: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> None:
    given = deepcopy(before)
    assert lifted(given, steps(step)) == after
    assert given == before


def test_a_default_is_every_payload_s_own() -> None:
    default = steps({"default": "a", "value": []})
    lifted({}, default)["a"].append("one")
    assert lifted({}, default) == {"a": []}


@pytest.mark.parametrize(
    ("version", "payload"),
    [
        ("1.0", {"id": 7, "ownerId": "u-1", "value": 9.5, "state": "WON", "currency": True}),
        ("1.4", {"id": 7, "ownerId": "u-1", "value": 9.5, "state": "WON"}),
        ("2.0", {"dealId": "7", "ownerId": "u-1", "value": 9.5, "state": "won"}),
    ],
)
def test_an_older_event_reaches_the_handlers_as_a_new_one(version: str, payload: dict[str, Any]) -> None:
    before = deepcopy(payload)
    amount = {"value": 9.5, "currency": "EUR"}
    assert load_contracts(SAMPLE).read("deal.signed", version, payload) == Accepted("3.0", SIGNED | {"amount": amount})
    assert payload == before


def test_one_between_goes_on_from_where_it_is() -> None:
    payload = {"dealId": "7", "ownerId": "u-1", "value": 9.5, "state": "won", "tag": "big"}
    lead = SIGNED | {"tags": ["big"]}
    assert load_contracts(SAMPLE).read("deal.signed", "2.1", payload) == Accepted("3.0", lead)
    assert load_contracts(SAMPLE).read("deal.signed", "2.9", payload) == Accepted("3.0", lead)


@pytest.mark.parametrize("version", ["3.0", "3", "3.0.0", "v3.0", "3.7"])
def test_the_newest_version_and_later_minor_ones_are_read_as_they_are(version: str) -> None:
    payload = SIGNED | {"new in 3.7": 1}
    assert load_contracts(SAMPLE).read("deal.signed", version, payload) == Accepted(version, payload)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_lower_minor_version_without_an_entry_is_read_as_the_lowest_there_is(version: str) -> None:
    payload = {"name": "ada", "it's": 1}
    assert load_contracts(SAMPLE).read("all.keywords", version, payload) == Accepted(version, payload)


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("4.0", "4.0 is newer than 3.0, the newest known here: deploy what knows it, then retry"),
        ("0.9", "0.9 is not among the versions that are read: 1.0, 2.0, 2.1, 3.0"),
        ("latest", "metadata.version is not written like 1.0"),
        ("", "metadata.version is not written like 1.0"),
        ("1" * 5000, "metadata.version is not written like 1.0"),
    ],
)
def test_a_version_nobody_knows_says_so(version: str, sentence: str) -> None:
    assert load_contracts(SAMPLE).read("deal.signed", version, SIGNED) == Violation("UNKNOWN_VERSION", sentence)


def test_an_older_event_must_keep_its_own_contract() -> None:
    verdict = load_contracts(SAMPLE).read("deal.signed", "1.0", {"id": "seven", "ownerId": "", "value": 9})
    sentence = "id must be a whole number; ownerId must not be empty; state is missing"
    assert verdict == Violation("INVALID_PAYLOAD", sentence)


def test_what_cannot_be_lifted_says_from_where_to_where() -> None:
    payload = {"dealId": "7", "ownerId": "u-1", "value": 9.5, "state": "won", "owner": "somebody"}
    assert load_contracts(SAMPLE).read("deal.signed", "2.0", payload) == Violation(
        "INVALID_PAYLOAD", "lifted from 2.0 to 3.0, owner must be an object"
    )


@given(st.data())
def test_whatever_an_older_version_allows_can_be_lifted(data: st.DataObject) -> None:
    path, event_type, release = data.draw(st.sampled_from(RELEASES))
    payload = data.draw(valid(release.schema))
    verdict = load_contracts(path).read(event_type, str(release.version), payload)
    assert isinstance(verdict, Accepted), verdict


def test_sure_fields_follow_the_steps() -> None:
    moved = steps({"move": "a", "to": "x.y"}, {"move": "never", "to": "z"}, {"default": "d", "value": 1}, {"drop": "e"})
    assert sure_fields(["a", "a.b", "e", "e.f", "g"], moved) == {"x", "x.y", "x.y.b", "d", "g"}


def test_handlers_see_the_event_in_its_newest_version() -> None:
    event = EventJob.model_validate(
        {
            "eventId": "e-1",
            "eventType": "deal.signed",
            "aggregateType": "deal",
            "aggregateId": "7",
            "tenantId": "t-1",
            "payload": {"a": 1},
            "metadata": {"correlationId": "c-1", "timestamp": "2026-01-01T10:00:00Z", "version": "1.0", "kept": 1},
            "occurredAt": "2026-01-01T10:00:00Z",
        }
    )
    assert event.read_as("1.0", event.payload) is event
    newer = event.read_as("2.0", {"b": 1})
    assert (newer.metadata.version, newer.payload, newer.metadata.model_extra) == ("2.0", {"b": 1}, {"kept": 1})
    assert event.metadata.version == "1.0"


def test_releases_are_in_order_of_their_numbers_not_of_their_letters() -> None:
    releases = load_catalogue(SAMPLE).events["deal.signed"].releases()
    assert [str(release.version) for release in releases] == ["1.0", "2.0", "2.1", "3.0"]
