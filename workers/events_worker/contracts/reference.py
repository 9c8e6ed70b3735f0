"""The catalogue as a page for people: docs/reference/events.md."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

from events_worker.contracts.acceptance import ANNOTATIONS
from events_worker.contracts.lifting import Convert, Default, Drop, Map, Move
from worker_runtime.schema_sentences import demand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from events_worker.contracts.catalogue import Catalogue, Contract, Release
    from events_worker.contracts.lifting import Step

HEAD = """\
# Events

Generated from `docs/events/contracts-v1.yaml` by `docs/reference/generate.py`; do not edit.
[Change an event](../how-to/change-an-event.md) says how to change one, [asyncapi.yaml](../events/asyncapi.yaml) is the
same for tools.

The payload of an event that is listed here must have its required fields; a field that is not named is accepted and
kept. A payload that breaks its contract is a dead letter `INVALID_PAYLOAD` that names the field, a version that nobody
knows is one with `UNKNOWN_VERSION`. `metadata.version` is the version of the payload; without one it is 1.0. A type
that is not listed is accepted with any payload.

A key names what makes two events the same; `{eventId}` stands where only the id does. After a dead letter the later
events of the same aggregate go on, unless the event says that they wait.
"""


def reference(catalogue: Catalogue) -> str:
    """Return the page."""
    families = groupby(catalogue.events.items(), key=lambda entry: entry[0].partition(".")[0])
    chapters = [_chapter(family, list(entries)) for family, entries in families]
    return "\n".join([HEAD, *chapters])


def _chapter(family: str, entries: list[tuple[str, Contract]]) -> str:
    return "\n".join([f"## {family}\n", *(_event(event_type, contract) for event_type, contract in entries)])


def _event(event_type: str, contract: Contract) -> str:
    *older, _ = contract.releases()
    about = f"{contract.description} Version {contract.version}, key `{contract.idempotency_key}`."
    if contract.on_dead_letter == "block":
        about += " After a dead letter, the later events of its aggregate wait for a person."
    paragraphs = [f"### {event_type}", about, *(_lifting(release) for release in reversed(older))]
    table = ["| field | | type | meaning |", "| --- | --- | --- | --- |"]
    rows = [_row(*field) for field in _fields(contract.json_schema)]
    return "\n".join([*(f"{paragraph}\n" for paragraph in paragraphs), *table, *rows, ""])


def _row(path: str, schema: Any, required: str) -> str:
    meaning = schema.get("description", "") if isinstance(schema, dict) else ""
    return f"| `{path}` | {required} | {_type(schema)} | {meaning} |".replace("  ", " ")


def _fields(schema: dict[str, Any], outer: str = "") -> Iterator[tuple[str, Any, str]]:
    """Return the path, the schema and `required` or nothing of every field, those of inner objects too."""
    for name, inner in schema.get("properties", {}).items():
        yield outer + name, inner, "required" if name in schema.get("required", []) else ""
        if isinstance(inner, dict):
            yield from _fields(inner, f"{outer}{name}.")
            if isinstance(entry := inner.get("items"), dict):
                yield from _fields(entry, f"{outer}{name}[].")


def _type(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "anything"
    kinds = schema.get("type", "anything")
    named = kinds if isinstance(kinds, str) else " or ".join(kinds)
    limits = [_limit(rule, expected) for rule, expected in schema.items() if rule not in NOT_LIMITS]
    return ", ".join([named.replace("array", f"array{_entries(schema)}"), *limits]).removeprefix("anything, ")


def _entries(schema: dict[str, Any]) -> str:
    return f" of {_type(schema['items'])}" if "items" in schema else ""


def _limit(rule: str, expected: Any) -> str:
    words = demand(rule, expected).removeprefix("must ").removeprefix("have ")
    return words.replace("be ", "", 1).replace("|", "\\|")


NOT_LIMITS = ANNOTATIONS | {"items", "properties", "required", "type"}


def _lifting(release: Release) -> str:
    steps = "; ".join(_told(step) for step in release.lift) or "it needs no change"
    return f"Version {release.version} is read too: {steps}."


def _told(step: Step) -> str:
    match step:
        case Move(move=source, to=target):
            return f"`{source}` becomes `{target}`"
        case Default(default=field, value=value):
            return f"`{field}` is `{json.dumps(value)}` where it is absent or null"
        case Map(map=field, values=values):
            pairs = ", ".join(f"`{old}` to `{json.dumps(new)}`" for old, new in values.items())
            return f"`{field}` changes from {pairs}"
        case Convert(convert=field, to=kind):
            return f"`{field}` becomes a {kind}"
        case Drop(drop=field):
            return f"`{field}` is dropped"
