from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from events_worker.contracts import SHIPPED, Catalogue, load_catalogue
from events_worker.contracts.changes import breaks

RELEASED = Path(__file__).parents[2] / "docs" / "events" / "released" / "contracts-v1.yaml"
MAJOR = "; undo it, or raise the version to 2.0 and keep 1.0 under `earlier`"
FIELDS: dict[str, Any] = {
    "id": {"type": "string", "minLength": 1},
    "name": {"type": ["string", "null"], "maxLength": 50},
    "kind": {"enum": ["user", "team"]},
    "owner": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
    "tags": {"type": "array", "items": {"type": "string"}},
}
SCHEMA = {"type": "object", "required": ["id"], "properties": FIELDS}


def catalogue(schema: dict[str, Any] = SCHEMA, version: str = "1.0", **entry: Any) -> Catalogue:
    required = {"version": version, "description": "Any.", "idempotencyKey": "a.b:{id}", "schema": schema}
    return Catalogue.model_validate({"events": {"a.b": required | entry}})


def with_fields(*required: str, **changed: Any) -> dict[str, Any]:
    fields = {name: schema for name, schema in (FIELDS | changed).items() if schema is not ...}
    return SCHEMA | {"required": ["id", *required], "properties": fields}


def test_what_was_released_still_holds() -> None:
    found = breaks(load_catalogue(RELEASED), load_catalogue(SHIPPED))
    assert not found, "docs/how-to/change-an-event.md says what to do:\n" + "\n".join(found)


def test_nothing_breaks_by_staying_the_same_or_by_new_words() -> None:
    assert breaks(catalogue(), catalogue()) == []
    told = with_fields(id=FIELDS["id"] | {"description": "Of the lead.", "examples": ["l-1"]}) | {"title": "A lead"}
    assert breaks(catalogue(), catalogue(told, description="Something else.", onDeadLetter="block")) == []


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        (with_fields(name=...), "name was removed: consumers that rely on it break"),
        (with_fields(name={"type": "string", "maxLength": 50}), "name was string or null and is now string"),
        (with_fields(tags={"type": "array"}), "tags[] was string and is now of any type"),
        (with_fields(id={"minLength": 1}), "id was string and is now of any type"),
        (with_fields("name"), "name is now required: producers that leave it out break"),
        (with_fields("more", more={}), "more is now required: producers that leave it out break"),
        (SCHEMA | {"required": []}, "id is no longer required: consumers that rely on it break"),
        (
            with_fields(kind={"enum": ["user"]}),
            "kind may no longer be team: producers that send it break",
        ),
        (
            with_fields(kind={"enum": ["user", "team", "queue"]}),
            "kind may now be queue too: consumers that know every value break",
        ),
        (
            with_fields(kind={}),
            "kind may be any value, where only user, team were allowed: consumers that rely on it break",
        ),
        (
            with_fields(tags=FIELDS["tags"] | {"enum": [[]]}),
            "tags may be only [], where any value was allowed: producers that send it break",
        ),
        (
            with_fields(name=FIELDS["name"] | {"maxLength": 20}),
            "name: maxLength was 50 and is now 20: producers that send it break",
        ),
        (
            with_fields(name=FIELDS["name"] | {"maxLength": 60}),
            "name: maxLength was 50 and is now 60: consumers that rely on it break",
        ),
        (with_fields(id={"type": "string"}), "id: minLength 1 is gone: consumers that rely on it break"),
        (with_fields(tags=FIELDS["tags"] | {"minItems": 1}), "tags: minItems 1 is new: producers that send it break"),
        (
            with_fields(id=FIELDS["id"] | {"minLength": 3}),
            "id: minLength was 1 and is now 3: producers that send it break",
        ),
        (
            with_fields(id=FIELDS["id"] | {"pattern": "^l-"}),
            "id: pattern has changed, and who breaks by that only a person can tell",
        ),
        (with_fields(owner={"type": "object"}), "owner.id was removed: consumers that rely on it break"),
        (
            with_fields(owner=FIELDS["owner"] | {"required": ["id", "kind"]}),
            "owner.kind is now required: producers that leave it out break",
        ),
        (
            SCHEMA | {"additionalProperties": False},
            "the payload: additionalProperties has changed, and who breaks by that only a person can tell",
        ),
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_break_within_a_major_version(schema: dict[str, Any], sentence: str, version: str) -> None:
    read_as = "" if version == "1.0" else "is now read as 1.1, where "
    assert breaks(catalogue(), catalogue(schema, version)) == [f"a.b 1.0: {read_as}{sentence}{MAJOR}"]


def test_what_a_removed_field_may_be_called_now_is_guessed() -> None:
    (first, _) = breaks(catalogue(), catalogue(with_fields(name=..., fullName=FIELDS["name"])))
    assert first == f"a.b 1.0: name was removed (renamed to fullName?): consumers that rely on it break{MAJOR}"


def test_a_new_optional_field_raises_the_minor_version() -> None:
    grown = with_fields(
        more={"type": "string"}, owner={**FIELDS["owner"], "properties": {"id": {"type": "string"}, "x": {}}}
    )
    assert breaks(catalogue(), catalogue(grown)) == [
        "a.b 1.0: owner.x was added; raise the version to 1.1",
        "a.b 1.0: more was added; raise the version to 1.1",
    ]
    assert breaks(catalogue(), catalogue(grown, "1.1")) == []


def test_a_new_major_version_may_do_anything_as_long_as_the_old_one_is_read() -> None:
    other = {"type": "object", "required": ["key"], "properties": {"key": {"type": "integer"}}}
    lift = [{"default": "key", "value": 0}]
    assert breaks(catalogue(), catalogue(other, "2.0", earlier={"1.0": {"schema": SCHEMA, "lift": lift}})) == []
    (unread,) = breaks(catalogue(), catalogue(other, "2.0"))
    assert unread.startswith("a.b 1.0: can no longer be read, and its events may still be on their way; keep it under")


def test_an_older_version_is_promised_as_the_newest_is() -> None:
    lift = [{"default": "key", "value": 0}]
    old = catalogue({}, "2.0", earlier={"1.0": {"schema": SCHEMA, "lift": lift}})
    new = catalogue({}, "2.0", earlier={"1.0": {"schema": with_fields("name"), "lift": lift}})
    assert breaks(old, new) == [f"a.b 1.0: name is now required: producers that leave it out break{MAJOR}"]


def test_an_event_that_is_gone_or_went_back() -> None:
    assert breaks(catalogue(), Catalogue(events={})) == [
        "a.b: is gone, and its events would be accepted unread; keep the entry"
    ]
    assert breaks(Catalogue(events={}), catalogue()) == []
    assert breaks(catalogue(version="1.10"), catalogue(version="1.9")) == [
        "a.b: the version went back from 1.10 to 1.9"
    ]


def test_another_idempotency_key_is_another_promise() -> None:
    assert breaks(catalogue(), catalogue(idempotencyKey="a.b:{eventId}")) == [
        f"a.b: idempotencyKey has changed, which makes one of two events or two of one{MAJOR}"
    ]


def test_the_command_says_it_line_by_line(tmp_path: Path) -> None:
    old, new = (
        written(tmp_path / "old.yaml", catalogue()),
        written(tmp_path / "new.yaml", catalogue(with_fields("name"))),
    )
    assert check(old, old) == (0, "", "nothing breaks\n")
    sentence = f"a.b 1.0: name is now required: producers that leave it out break{MAJOR}"
    assert check(old, new) == (1, f"{sentence}\n", "1 promises are broken\n")


def test_the_command_says_which_file_is_no_catalogue(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("events: {}\nmore: 1\n")
    complaint = f"error: {tmp_path}/bad.yaml:2: more: unknown key; there are events\n"
    assert check(str(tmp_path / "bad.yaml")) == (1, "", complaint)


def check(*paths: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "worker_ops", "contracts", "check", *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def written(path: Path, content: Catalogue) -> str:
    path.write_text(yaml.safe_dump(content.model_dump(mode="json", by_alias=True)))
    return str(path)
