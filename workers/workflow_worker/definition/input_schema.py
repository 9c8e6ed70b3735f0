"""The JSON Schema of an input: checked when it is written, and asked with bounded work, for it is a stranger's.

Patterns are RE2's: they take time in proportion to the text, whatever they are.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import re2
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from worker_runtime.allowance import TooMuchWork, allowance, charge, weigh
from worker_runtime.schema_sentences import problems
from worker_runtime.yaml_source import Complaint, Mistakes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker_runtime.yaml_source import Place

__all__ = ["InputSchema"]

MOST_WORK = 40_000
MOST_INPUT_CHARACTERS = 10_000_000
MOST_SCHEMA_CHARACTERS = 16_384
MOST_PATTERN_CHARACTERS = 1_000
MOST_PATTERN_MEMORY = 1 << 20
LONGEST_SENTENCE = 200
DRAFT = "https://json-schema.org/draft/2020-12/schema"
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
# They match names by patterns of their own, or find their way by names that lead elsewhere.
NOT_OURS = {"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$vocabulary", "patternProperties"} | {
    "unevaluatedItems",
    "unevaluatedProperties",
}
# These go through the whole of a value.
THROUGH = frozenset({"const", "enum", "uniqueItems"})


class InputSchema:
    """What an input must be."""

    def __init__(self, schema: Any) -> None:
        """Check the schema; raises `Mistakes`."""
        if mistakes := list(_mistakes(schema)):
            raise Mistakes(mistakes)
        self._validator = _Bounded(schema, registry=Registry())

    def problem(self, value: Any) -> str | None:
        """Say what is wrong with an input, with its path and without its data; `None` when nothing is."""
        try:
            with allowance(MOST_WORK):
                return problems(self._validator, value, "the input")
        except (TooMuchWork, RecursionError):
            return "the input takes too much work to check against its schema"


def _mistakes(schema: Any) -> Iterator[Complaint]:
    if not isinstance(schema, dict):
        yield Complaint((), "must be a JSON Schema: a mapping")
    elif len(json.dumps(schema)) > MOST_SCHEMA_CHARACTERS:
        yield Complaint((), f"has more than {MOST_SCHEMA_CHARACTERS} characters")
    else:
        errors = list(Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema))
        yield from (Complaint(tuple(error.absolute_path), _sentence(error)) for error in errors)
        if not errors:
            yield from _strangers(schema, (), schema)


def _sentence(error: ValidationError) -> str:
    if error.absolute_path and error.absolute_path[-1] == "type":
        return f"must be one of {', '.join(TYPES)}, or a list of these"
    return error.message[:LONGEST_SENTENCE]


def _strangers(part: Any, place: Place, schema: Any) -> Iterator[Complaint]:
    """Yield what leads elsewhere or nowhere, and patterns that are none, wherever they are written."""
    if isinstance(part, list):
        for index, one in enumerate(part):
            yield from _strangers(one, (*place, index), schema)
    elif isinstance(part, dict):
        for key, one in part.items():
            # What is below these keys are names, not words of JSON Schema.
            named = place[-1:] in (("properties",), ("$defs",), ("dependentSchemas",))
            if not named and (sentence := _objection(key, one, schema)):
                yield Complaint((*place, key), sentence)
            yield from _strangers(one, (*place, key), schema)


def _objection(key: str, value: Any, schema: Any) -> str | None:
    if key == "$schema" and value != DRAFT:
        return f"must be {DRAFT}"
    if key in NOT_OURS:
        return "is not supported in the schema of an input"
    if key == "$ref" and isinstance(value, str):
        return _broken(value, schema)
    return _no_pattern(value) if key == "pattern" and isinstance(value, str) else None


def _broken(reference: str, schema: Any) -> str | None:
    if not reference.startswith("#"):
        return "refers to another document: nothing is fetched; write it here, under $defs"
    try:
        Registry().with_resource("", DRAFT202012.create_resource(schema)).resolver().lookup(reference)
    except Unresolvable:
        return f"refers to {reference}, which is not here"
    return None


def _no_pattern(pattern: str) -> str | None:
    if len(pattern) > MOST_PATTERN_CHARACTERS:
        return f"has more than {MOST_PATTERN_CHARACTERS} characters"
    try:
        _compiled(pattern)
    except re2.error as error:
        why = error.args[0] if error.args else b""
        return f"is no regular expression of RE2's: {why.decode('utf-8', 'replace') if isinstance(why, bytes) else why}"
    return None


@functools.lru_cache(1_000)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MOST_PATTERN_MEMORY
    return re2.compile(pattern, options)


def _charged(name: str, check: Any) -> Any:
    def charged(validator: Any, expected: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        charge(1 + (len(expected) if isinstance(expected, (list, dict)) else 0))
        if name in THROUGH:
            _go_through(instance)
        for error in check(validator, expected, instance, schema) or ():
            # An error writes the value down, in a message that nobody reads.
            _go_through(instance)
            yield error

    return charged


def _go_through(instance: Any) -> None:
    charge(weigh(instance, MOST_INPUT_CHARACTERS) >> 7)


def _pattern(validator: Any, expected: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string"):
        charge(len(instance) >> 7)
        if not _compiled(expected).search(instance):
            yield ValidationError("does not match")


def _unique(validator: Any, expected: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if expected and validator.is_type(instance, "array"):
        written = [json.dumps(item, sort_keys=True) for item in instance]
        if len(set(written)) < len(written):
            yield ValidationError("has an item twice")


_OURS = {**Draft202012Validator.VALIDATORS, "pattern": _pattern, "uniqueItems": _unique}
_Bounded: Any = extend(  # type: ignore[no-untyped-call]  # jsonschema has types for what is usual
    Draft202012Validator, {name: _charged(name, check) for name, check in _OURS.items()}
)
