"""Text that somebody else wrote, as PostgreSQL can hold it; and its JSON, as far as Python can."""

from __future__ import annotations

import json
import math
from typing import Any

DEEPEST_JSON = 200


class UnreadableJson(ValueError):
    """JSON that PostgreSQL holds and that must not be handed on. Says why, and quotes nothing of it."""


def read_json(text: str | bytes, deepest: int = DEEPEST_JSON) -> Any:
    """Read JSON that whoever writes it down again, or goes through it, will not die of; raises `UnreadableJson`."""
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except UnreadableJson:
        raise
    except RecursionError as error:
        raise _too_deep(deepest) from error
    except ValueError as error:
        # Of PostgreSQL's own JSON only this: Python reads no number of more than 4,300 digits.
        raise UnreadableJson("is not JSON, or holds a number of too many digits") from error
    if _is_deeper_than(value, deepest):
        raise _too_deep(deepest)
    return value


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise UnreadableJson("holds a number that is too large")
    return value


def _too_deep(deepest: int) -> UnreadableJson:
    return UnreadableJson(f"is nested deeper than {deepest}")


def _is_deeper_than(value: Any, deepest: int) -> bool:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(deepest):
        inner = (of_it.values() if isinstance(of_it, dict) else of_it for of_it in level)
        level = [one for these in inner for one in these if isinstance(one, (dict, list))]
        if not level:
            return False
    return True


def storable(text: str) -> str:
    """Write as escapes what PostgreSQL's text cannot hold: one such value would keep all others of its batch out."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def storable_json(value: Any) -> Any:
    """Do the same for all texts in a JSON value."""
    match value:
        case str():
            return storable(value)
        case dict():
            return {storable(str(key)): storable_json(of_it) for key, of_it in value.items()}
        case list() | tuple():
            return [storable_json(entry) for entry in value]
    return value
