"""The steps that lift a payload from one version to the next, as a contract declares them.

A step says what to do with one field and does nothing when the field is not there. Fields of inner objects are written
with dots. What these steps cannot say is another event and deserves a name of its own.
"""

from __future__ import annotations

import json
import re
from copy import deepcopy
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, StringConstraints, Tag

if TYPE_CHECKING:
    from collections.abc import Iterable

JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
LONGEST_NUMBER = 300
VERBS = ("move", "default", "map", "convert", "drop")

FieldPath = Annotated[str, StringConstraints(pattern=r"^[\w-]+(\.[\w-]+)*$")]
Fields = dict[str, Any]


class _Step(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Move(_Step):
    """Renames a field or takes it elsewhere. What is there already wins: a producer on its way sends both names."""

    move: FieldPath
    to: FieldPath

    def apply(self, payload: Fields) -> None:
        """Change the payload in place."""
        if (source := _holder(payload, self.move)) is None:
            return
        # Out of the way first: `amount` may become `amount.value`.
        value = source.pop(_name(self.move))
        if (target := _holder_to_be(payload, self.to)) is None:
            source[_name(self.move)] = value
        else:
            target.setdefault(_name(self.to), value)


class Default(_Step):
    """Gives a value to a field that is absent or null."""

    default: FieldPath
    value: Any

    def apply(self, payload: Fields) -> None:
        """Change the payload in place."""
        target = _holder_to_be(payload, self.default)
        if target is not None and target.get(_name(self.default)) is None:
            target[_name(self.default)] = deepcopy(self.value)


class Map(_Step):
    """Replaces texts by other values; a text that is not among the keys stays."""

    map: FieldPath
    values: dict[str, Any]

    def apply(self, payload: Fields) -> None:
        """Change the payload in place."""
        if (found := _holder(payload, self.map)) is not None:
            value = found[_name(self.map)]
            if isinstance(value, str) and value in self.values:
                found[_name(self.map)] = deepcopy(self.values[value])


class Convert(_Step):
    """Changes a field's type; what has no such form stays, and the newer schema will complain of it."""

    convert: FieldPath
    to: Literal["string", "number", "list"]

    def apply(self, payload: Fields) -> None:
        """Change the payload in place."""
        if (found := _holder(payload, self.convert)) is not None:
            found[_name(self.convert)] = _converted(found[_name(self.convert)], self.to)


class Drop(_Step):
    """Removes a field whose name will mean something else."""

    drop: FieldPath

    def apply(self, payload: Fields) -> None:
        """Change the payload in place."""
        if (found := _holder(payload, self.drop)) is not None:
            del found[_name(self.drop)]


def _verb(step: Any) -> str | None:
    names = step if isinstance(step, dict) else getattr(type(step), "model_fields", {})
    return next((verb for verb in VERBS if verb in names), None)


Step = Annotated[
    Annotated[Move, Tag("move")]
    | Annotated[Default, Tag("default")]
    | Annotated[Map, Tag("map")]
    | Annotated[Convert, Tag("convert")]
    | Annotated[Drop, Tag("drop")],
    Discriminator(_verb, custom_error_type="step", custom_error_message=f"is no step; there are {', '.join(VERBS)}"),
]


def lifted(payload: Fields, steps: Iterable[Step]) -> Fields:
    """Return the payload with every step applied; the given one stays as it is."""
    copy = deepcopy(payload)
    for step in steps:
        step.apply(copy)
    return copy


def sure_fields(required: Iterable[str], steps: Iterable[Step]) -> set[str]:
    """Return the paths of the fields that every payload has after the steps, when it had the required ones before."""
    sure = set(required)
    for step in steps:
        match step:
            case Move(move=source, to=target) if source in sure:
                moved = {path for path in sure if _is_within(path, source)}
                sure = sure - moved | {target + path.removeprefix(source) for path in moved} | _ways(target)
            case Default(default=field):
                sure |= _ways(field)
            case Drop(drop=field):
                sure = {path for path in sure if not _is_within(path, field)}
            case Move() | Map() | Convert():
                pass
    return sure


def _holder(payload: Fields, path: str) -> Fields | None:
    """Return the object in which the field of this path is, if it is."""
    *outer, name = path.split(".")
    inner = payload
    for part in outer:
        inner = _object(inner.get(part))
    return inner if name in inner else None


def _holder_to_be(payload: Fields, path: str) -> Fields | None:
    """Return the object in which a field of this path belongs; `None` when something else is in its place."""
    inner = payload
    for part in path.split(".")[:-1]:
        if inner.get(part) is None:
            inner[part] = {}
        if not isinstance(inner[part], dict):
            return None
        inner = inner[part]
    return inner


def _object(value: object) -> Fields:
    return value if isinstance(value, dict) else {}


def _name(path: str) -> str:
    return path.rpartition(".")[2]


def _ways(path: str) -> set[str]:
    """Return the path and those of the objects around it."""
    parts = path.split(".")
    return {".".join(parts[: length + 1]) for length in range(len(parts))}


def _is_within(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")


def _converted(value: Any, to: str) -> Any:
    if to == "list":
        return value if value is None or isinstance(value, list) else [value]
    if to == "string":
        return json.dumps(value) if isinstance(value, (bool, int, float)) else value
    return _number(value) if isinstance(value, str) else value


def _number(text: str) -> Any:
    if len(text) > LONGEST_NUMBER or not JSON_NUMBER.fullmatch(text):
        return text
    number = json.loads(text)
    return number if isfinite(number) else text
