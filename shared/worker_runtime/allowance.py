"""So much work and no more, for what strangers wrote: counted, so that it ends at the same place on any machine."""

from __future__ import annotations

import math
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MOST_INTEGER_BITS", "TooMuchWork", "allowance", "charge", "weigh", "weight"]

# What is done to so many characters costs as much as what is done to one value: about a microsecond.
CHARACTERS_BITS = 7
MOST_INTEGER_BITS = 4_096
NUMBER_CHARACTERS = 8

_left: ContextVar[list[int]] = ContextVar("_left")


class TooMuchWork(Exception):
    """The allowance is used up. The message holds no data."""


@contextmanager
def allowance(units: int) -> Iterator[None]:
    """Allow what is done inside so many units of work; one inside another has its own."""
    token = _left.set([units])
    try:
        yield
    finally:
        _left.reset(token)


def charge(units: int) -> None:
    """Take from the allowance at hand; raises `TooMuchWork`."""
    left = _left.get()
    left[0] -= units
    if left[0] < 0:
        raise TooMuchWork("takes too much work")


def weight(value: Any) -> int:
    """Return what it costs to go through a value once, without what lists and mappings within it hold."""
    if isinstance(value, str):
        return len(value) >> CHARACTERS_BITS
    if isinstance(value, (list, tuple)):
        return len(value) + sum(len(item) >> CHARACTERS_BITS for item in value if isinstance(item, str))
    return len(value) if isinstance(value, dict) else 0


def weigh(value: Any, most_characters: int) -> int:
    """Count the characters that a value of JSON takes, roughly; charges for each value within it.

    Raises `TooMuchWork` for more than `most_characters`, `TypeError` for what is not JSON and `ValueError` for numbers
    that it cannot write.
    """
    characters, todo = 0, [value]
    while todo:
        one = todo.pop()
        characters += _own_characters(one, todo)
        charge(1)
        if characters > most_characters:
            raise TooMuchWork("makes something too large")
    return characters


def _own_characters(value: Any, todo: list[Any]) -> int:
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, dict):
        todo += value.values()
        return sum(map(_key_characters, value)) + 2
    if isinstance(value, (list, tuple)):
        todo += value
        return len(value) + 2
    if value is None or isinstance(value, (bool, int, float)):
        return _number_characters(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _key_characters(key: Any) -> int:
    if not isinstance(key, (str, int, float, bool, type(None))):
        raise TypeError("a key is not JSON")
    return len(key) + 4 if isinstance(key, str) else NUMBER_CHARACTERS


def _number_characters(value: Any) -> int:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a number that JSON can write")
    if isinstance(value, int) and value.bit_length() > MOST_INTEGER_BITS:
        raise ValueError("a number of too many digits")
    return NUMBER_CHARACTERS
