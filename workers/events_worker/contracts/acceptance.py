"""A quick yes: most payloads are valid, and the validator that says what is wrong with the others is ten times slower.

Knows the few keywords that the shipped contracts use; of everything else it is not sure, and the validator decides.
"""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from events_worker.contracts.catalogue import Schema

Check = Callable[[Any], bool]

ANNOTATIONS = frozenset({"$comment", "default", "deprecated", "description", "examples", "title"})
KNOWN = frozenset({"maximum", "minLength", "minimum", "properties", "required", "type"}) | ANNOTATIONS
# A float may be a whole number too, and then the validator says so.
TYPES: dict[str, frozenset[type]] = {
    "array": frozenset({list}),
    "boolean": frozenset({bool}),
    "integer": frozenset({int}),
    "null": frozenset({NoneType}),
    "number": frozenset({int, float}),
    "object": frozenset({dict}),
    "string": frozenset({str}),
}
ANYTHING = frozenset[type]().union(*TYPES.values())


def acceptance(schema: Any) -> Check:
    """Return a check of parsed JSON that is true only of valid values; false says nothing."""
    if not isinstance(schema, dict) or not schema.keys() <= KNOWN:
        return lambda _: False
    kinds = _kinds(schema)
    demands = [*_of_strings(schema), *_of_numbers(schema), *_of_objects(schema)]
    if not demands:
        return lambda value: type(value) in kinds
    if len(demands) == 1:
        (demand,) = demands
        return lambda value: type(value) in kinds and demand(value)
    return lambda value: type(value) in kinds and all(demand(value) for demand in demands)


def _kinds(schema: Schema) -> frozenset[type]:
    named = schema.get("type", [])
    kinds = frozenset[type]().union(*(TYPES[name] for name in ([named] if isinstance(named, str) else named)))
    return kinds or ANYTHING


def _of_strings(schema: Schema) -> list[Check]:
    if shortest := schema.get("minLength"):
        return [lambda value: type(value) is not str or len(value) >= shortest]
    return []


def _of_numbers(schema: Schema) -> list[Check]:
    least, most = schema.get("minimum", float("-inf")), schema.get("maximum", float("inf"))
    if schema.keys() & {"minimum", "maximum"}:
        return [lambda value: type(value) not in TYPES["number"] or least <= value <= most]
    return []


def _of_objects(schema: Schema) -> list[Check]:
    required = frozenset(schema.get("required", []))
    fields = tuple((name, acceptance(inner)) for name, inner in schema.get("properties", {}).items())
    if not required and not fields:
        return []

    def holds(value: Any) -> bool:
        if type(value) is not dict:
            return True
        if not required <= value.keys():
            return False
        for name, valid in fields:  # noqa: SIM110  a generator would cost as much again
            if name in value and not valid(value[name]):
                return False
        return True

    return [holds]
