"""What is wrong with a value by its JSON Schema, in words: fields by their names, never what somebody has put there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

MOST_SENTENCES = 5
TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "object": "an object",
}
DEMANDS = {
    "const": "must be {}",
    "exclusiveMaximum": "must be less than {}",
    "exclusiveMinimum": "must be more than {}",
    "maxItems": "must have at most {} entries",
    "maxLength": "must have at most {} characters",
    "maximum": "must be at most {}",
    "minItems": "must have at least {} entries",
    "minLength": "must have at least {} characters",
    "minimum": "must be at least {}",
    "pattern": "must match {}",
}


def problems(validator: Validator, payload: Any, whole: str = "the payload") -> str | None:
    """Say what is wrong, at most five things in the order of their names; `None` when nothing is.

    `whole` is what the value is called where it is wrong as a whole.
    """
    errors = validator.iter_errors(payload)
    sentences = {sentence for error in errors for sentence in _sentences(error, whole)}
    return "; ".join(sorted(sentences)[:MOST_SENTENCES]) or None


def missing(field: str) -> str:
    """Say that a required field is not there."""
    return f"{field} is missing"


def demand(rule: str, expected: Any) -> str:
    """Say what a keyword of JSON Schema asks of a value."""
    if rule == "type":
        return "must be " + " or ".join(TYPES.get(kind, f"a {kind}") for kind in _listed(expected))
    if rule == "enum":
        return "must be one of " + listing(expected)
    if rule == "minLength" and expected == 1:
        return "must not be empty"
    return DEMANDS.get(rule, f"breaks the rule {rule}").format(listing([expected]))


def listing(values: Sequence[Any]) -> str:
    """Write values of a contract: texts as they are, everything else as JSON."""
    return ", ".join(value if isinstance(value, str) else json.dumps(value) for value in values)


def _sentences(error: ValidationError, whole: str) -> Iterator[str]:
    field = _field(error)
    given: Any = error.instance
    expected: Any = error.validator_value
    if error.validator == "required":
        for name in expected:
            if name not in given:
                yield missing(f"{field}.{name}" if field else name)
    else:
        yield f"{field or whole} {demand(str(error.validator), expected)}"


def _field(error: ValidationError) -> str:
    """Return the path of a field, without what only the producer has named: it may tell of somebody."""
    named = error.absolute_schema_path
    return ".".join(str(part) if isinstance(part, int) or part in named else "*" for part in error.absolute_path)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
