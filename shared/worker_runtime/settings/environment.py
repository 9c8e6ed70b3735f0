"""The only reader of the process environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_settings import PydanticBaseSettingsSource

from worker_runtime.settings.queues import QUEUES
from worker_runtime.settings.variables import Variable, variables_of

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Unreadable:
    """Stands where a value should be, so that it is reported together with every other problem."""

    why: str


class Environment(PydanticBaseSettingsSource):
    """What the environment says about each variable of a settings class. An empty value is an unset one."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not used: a field may be filled by several variables."""
        raise TypeError(f"{field_name} ({field.description}) is read with all others, not alone")

    def __call__(self) -> dict[str, Any]:
        """Return the values that are set, by field."""
        found: dict[str, Any] = {}
        for variable in variables_of(self.settings_cls):
            if (value := read(variable)) is not None:
                _put(found, variable, value)
        return found


def names() -> tuple[str, ...]:
    """Return the names of all variables that are set."""
    return tuple(os.environ)


def read(variable: Variable) -> str | Unreadable | None:
    """Return a variable's text, from `<NAME>_FILE` if it is a secret and comes that way."""
    value = os.environ.get(variable.name) or None
    path = (os.environ.get(f"{variable.name}_FILE") or None) if variable.secret else None
    if path is None:
        return value
    if value is not None:
        return Unreadable(f"both {variable.name} and {variable.name}_FILE are set")
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n") or None
    except (OSError, UnicodeDecodeError) as error:
        return Unreadable(f"{variable.name}_FILE names a file that cannot be read ({type(error).__name__})")


def _put(found: dict[str, Any], variable: Variable, value: str | Unreadable) -> None:
    if len(variable.where) == 1:
        found[variable.where[0]] = value
        return
    field, queue, option = variable.where
    known = QUEUES.get(queue.upper())
    options = found.setdefault(field, {}).setdefault(queue, dict(known.defaults) if known else {})
    options[option] = value
