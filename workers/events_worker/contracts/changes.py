"""What has changed between two catalogues that somebody relies on.

Within a major version a contract may only grow optional fields, and each growth raises the minor version. Anything else
breaks one side: what is narrowed refuses events that producers may send, what is widened surprises consumers that took
the old promise at its word. That goes for a new value of an `enum` too; a set that will grow is better left free text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from events_worker.contracts.acceptance import ANNOTATIONS
from events_worker.contracts.catalogue import release_for
from events_worker.contracts.versions import written
from worker_runtime.schema_sentences import listing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from events_worker.contracts.catalogue import Catalogue, Contract, Release

PRODUCERS = "producers that send it break"
CONSUMERS = "consumers that rely on it break"
# Raising these narrows what is allowed, lowering them widens it; for the second set it is the other way round.
LOWER_LIMITS = frozenset({"exclusiveMinimum", "minItems", "minLength", "minProperties", "minimum"})
UPPER_LIMITS = frozenset({"exclusiveMaximum", "maxItems", "maxLength", "maxProperties", "maximum"})
SPOKEN_OF = LOWER_LIMITS | UPPER_LIMITS | ANNOTATIONS | {"enum", "items", "properties", "required", "type"}


class Change(NamedTuple):
    """One difference between two schemas; a harmless one needs a new minor version, any other a new major one."""

    sentence: str
    harmless: bool = False


def breaks(old: Catalogue, new: Catalogue) -> list[str]:
    """Say what in the new catalogue breaks those who rely on the old one, a sentence each; empty when nothing does."""
    return [
        sentence
        for event_type, contract in old.events.items()
        for sentence in _broken(event_type, contract, new.events.get(event_type))
    ]


def _broken(event_type: str, old: Contract, new: Contract | None) -> Iterator[str]:
    if new is None:
        yield f"{event_type}: is gone, and its events would be accepted unread; keep the entry"
        return
    if written(new.version) < written(old.version):
        yield f"{event_type}: the version went back from {old.version} to {new.version}"
        return
    if new.idempotency_key != old.idempotency_key and _same_major(old, new):
        yield f"{event_type}: idempotencyKey has changed, which makes one of two events or two of one; {_major(old)}"
    releases = new.releases()
    for release in old.releases():
        for sentence in _unread(release, release_for(releases, release.version), new):
            yield f"{event_type} {release.version}: {sentence}"


def _unread(old: Release, reader: Release | None, contract: Contract) -> Iterator[str]:
    """Compare a version that was promised with the one by which its events are now read."""
    if reader is None:
        remedy = f"keep it under `earlier`, with the steps that lift it to {contract.version}"
        yield f"can no longer be read, and its events may still be on their way; {remedy}"
        return
    for change in changes(old.schema, reader.schema):
        if reader.version == old.version:
            yield f"{change.sentence}; {_minor(old) if change.harmless else _major(old)}"
        elif not change.harmless:
            yield f"is now read as {reader.version}, where {change.sentence}; {_major(old)}"


def changes(old: Any, new: Any, field: str = "") -> Iterator[Change]:
    """Compare two schemas; `field` is the path of the field they are of."""
    old, new = _keywords(old), _keywords(new)
    name = field or "the payload"
    yield from _type_changes(name, _listed(old.get("type")), _listed(new.get("type")))
    yield from _value_changes(name, old.get("enum"), new.get("enum"))
    yield from _limit_changes(name, old, new)
    yield from _requirement_changes(field, old, new)
    yield from _field_changes(field, old, new)
    if "items" in old or "items" in new:
        yield from changes(old.get("items", {}), new.get("items", {}), f"{field}[]")
    for rule in sorted((old.keys() | new.keys()) - SPOKEN_OF):
        if old.get(rule) != new.get(rule):
            yield Change(f"{name}: {rule} has changed, and who breaks by that only a person can tell")


def _type_changes(name: str, old: Sequence[str], new: Sequence[str]) -> Iterator[Change]:
    if set(old) != set(new):
        yield Change(f"{name} was {_types(old)} and is now {_types(new)}")


def _value_changes(name: str, old: list[Any] | None, new: list[Any] | None) -> Iterator[Change]:
    if old is None and new is not None:
        yield Change(f"{name} may be only {listing(new)}, where any value was allowed: {PRODUCERS}")
    elif old is not None and new is None:
        yield Change(f"{name} may be any value, where only {listing(old)} were allowed: {CONSUMERS}")
    elif old is not None and new is not None:
        if gone := [value for value in old if value not in new]:
            yield Change(f"{name} may no longer be {listing(gone)}: {PRODUCERS}")
        if added := [value for value in new if value not in old]:
            yield Change(f"{name} may now be {listing(added)} too: consumers that know every value break")


def _limit_changes(name: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    for rule in sorted(LOWER_LIMITS | UPPER_LIMITS):
        before, after = old.get(rule), new.get(rule)
        if before != after:
            rises = before is None or (after is not None and after > before)
            narrower = after is not None and (before is None or rises == (rule in LOWER_LIMITS))
            yield Change(f"{name}: {_limit_change(rule, before, after)}: {PRODUCERS if narrower else CONSUMERS}")


def _limit_change(rule: str, before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return f"{rule} {after} is new" if before is None else f"{rule} {before} is gone"
    return f"{rule} was {before} and is now {after}"


def _requirement_changes(field: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    before, after = set(old.get("required", [])), set(new.get("required", []))
    for name in sorted(after - before):
        yield Change(f"{_inner(field, name)} is now required: producers that leave it out break")
    for name in sorted((before - after).difference(_gone(old, new))):
        yield Change(f"{_inner(field, name)} is no longer required: {CONSUMERS}")


def _field_changes(field: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    before, after = _fields(old), _fields(new)
    for name in before:
        if name in after:
            yield from changes(before[name], after[name], _inner(field, name))
    for name in _gone(old, new):
        yield Change(f"{_inner(field, name)} was removed{_heir(before[name], _gained(old, new))}: {CONSUMERS}")
    for name in _gained(old, new):
        if name not in new.get("required", []):
            yield Change(f"{_inner(field, name)} was added", harmless=True)


def _heir(removed: Any, gained: dict[str, Any]) -> str:
    """Guess what a removed field is called now: the one new field that promises the same."""
    alike = [name for name, schema in gained.items() if not [*changes(removed, schema)]]
    return f" (renamed to {alike[0]}?)" if len(alike) == 1 else ""


def _gone(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [name for name in _fields(old) if name not in _fields(new)]


def _gained(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {name: schema for name, schema in _fields(new).items() if name not in _fields(old)}


def _fields(schema: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = schema.get("properties", {})
    return fields


def _same_major(old: Contract, new: Contract) -> bool:
    return written(old.version).major == written(new.version).major


def _minor(old: Release) -> str:
    return f"raise the version to {old.version.major}.{old.version.minor + 1}"


def _major(old: Contract | Release) -> str:
    major = written(str(old.version)).major
    return f"undo it, or raise the version to {major + 1}.0 and keep {old.version} under `earlier`"


def _keywords(schema: Any) -> dict[str, Any]:
    if isinstance(schema, dict):
        return {rule: value for rule, value in schema.items() if rule not in ANNOTATIONS}
    return {} if schema else {"not": {}}


def _inner(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _listed(kinds: str | list[str] | None) -> list[str]:
    return [kinds] if isinstance(kinds, str) else kinds or []


def _types(kinds: Sequence[str]) -> str:
    return " or ".join(kinds) or "of any type"
