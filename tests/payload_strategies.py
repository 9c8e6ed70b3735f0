"""Payloads for the schema of a contract: valid ones, and ones that are mostly a little wrong."""

from __future__ import annotations

from math import ceil, floor
from typing import Any

from hypothesis import strategies as st

MOST = 10**6
# What jsonb holds: no NUL, no lone surrogates, no infinity.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(CHARACTERS, max_size=8)
NUMBERS = st.integers(-MOST, MOST) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
KINDS = ["array", "boolean", "null", "number", "object", "string"]


def wild(schema: Any) -> st.SearchStrategy[Any]:
    """Values near the schema: on a limit or beyond it, of another type, with fields missing and foreign ones added."""
    rules = keywords(schema)
    near = [valid(schema), ANYTHING]
    if limits := [limit for rule, limit in rules.items() if rule.lower().endswith("imum")]:
        near.append(st.sampled_from([limit + step for limit in limits for step in (-1, -0.5, 0, 0.5, 1)]))
    if "items" in rules:
        near.append(st.lists(wild(rules["items"]), max_size=4))
    if "properties" in rules:
        fields = {name: wild(inner) for name, inner in rules["properties"].items()}
        near.append(st.fixed_dictionaries({}, optional=fields | {"foreign": ANYTHING}))
        # One wrong field in a payload that is right is what tells two judges apart.
        near.append(st.builds(lambda good, bad: good | bad, valid(rules | {"type": "object"}), one_of_them(fields)))
    return st.one_of(near)


def one_of_them(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from(sorted(fields)).flatmap(lambda name: st.fixed_dictionaries({name: fields[name]}))


def valid(schema: Any) -> st.SearchStrategy[Any]:
    """Values that keep the schema, whose keywords are those that the database check knows."""
    rules = keywords(schema)
    if "const" in rules:
        return st.just(rules["const"])
    if "enum" in rules:
        return st.sampled_from(rules["enum"])
    kinds = rules.get("type", KINDS)
    return st.one_of([of_kind(kind, rules) for kind in ([kinds] if isinstance(kinds, str) else kinds)])


def of_kind(kind: str, rules: dict[str, Any]) -> st.SearchStrategy[Any]:
    match kind:
        case "string":
            return st.text(CHARACTERS, min_size=rules.get("minLength", 0), max_size=rules.get("maxLength", 8))
        case "integer" | "number":
            return number(kind, rules)
        case "array":
            entries = valid(rules["items"]) if "items" in rules else SCALARS
            return st.lists(entries, min_size=rules.get("minItems", 0), max_size=rules.get("maxItems", 3))
        case "object":
            return valid_object(rules)
        case "boolean":
            return st.booleans()
        case _:
            return st.none()


def number(kind: str, rules: dict[str, Any]) -> st.SearchStrategy[Any]:
    above, below = rules.get("exclusiveMinimum"), rules.get("exclusiveMaximum")
    least = rules.get("minimum", -MOST) if above is None else above
    most = rules.get("maximum", MOST) if below is None else below
    if kind == "integer":
        return st.integers(ceil(least), floor(most))
    return st.floats(least, most, exclude_min=above is not None, exclude_max=below is not None)


def valid_object(rules: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    required = rules.get("required", [])
    fields = {name: valid(inner) for name, inner in rules.get("properties", {}).items()}
    sure = {name: fields.get(name, SCALARS) for name in required}
    return st.fixed_dictionaries(sure, optional={name: field for name, field in fields.items() if name not in sure})


def keywords(schema: Any) -> dict[str, Any]:
    return schema if isinstance(schema, dict) else {}
