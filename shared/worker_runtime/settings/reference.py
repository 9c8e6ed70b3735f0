"""The page docs/reference/settings.md, written from the settings classes themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from worker_runtime.settings.kinds import DefaultIs
from worker_runtime.settings.variables import Variable, note, variables_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import BaseModel

HEAD = """# Settings

Generated from the settings classes by `docs/reference/generate.py`; do not edit.

Every setting is an environment variable. An empty value counts as unset. A variable marked *secret* is never shown and
also comes as `<NAME>_FILE`, the path of a file that holds it. `<process> check` validates a configuration without
connecting.
"""


def reference(workers: Mapping[str, type[BaseModel]], common: type[BaseModel]) -> str:
    """Return the page: the variables all workers share, group by group, then those of each worker by its name."""
    shared = variables_of(common)
    parts = [HEAD, *_tables(shared)]
    for worker, settings_type in workers.items():
        parts.append(_table(f"Only `{worker}`", _own(settings_type, shared)))
    return "\n".join(parts)


def _own(settings_type: type[BaseModel], shared: list[Variable]) -> list[Variable]:
    inherited = {variable.name: repr(variable.field) for variable in shared}
    return [
        variable for variable in variables_of(settings_type) if inherited.get(variable.name) != repr(variable.field)
    ]


def _tables(variables: list[Variable]) -> Iterable[str]:
    for group in dict.fromkeys(variable.group for variable in variables):
        yield _table(group, [variable for variable in variables if variable.group == group])


def _table(title: str, variables: list[Variable]) -> str:
    rows = [f"## {title}", "", "| variable | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    rows += [_row(variable) for variable in variables]
    return "\n".join([*rows, ""])


def _row(variable: Variable) -> str:
    return f"| `{variable.name}` | {_written(variable)} | {variable.allowed} | {_meaning(variable)} |"


def _written(variable: Variable) -> str:
    default = variable.default
    if said := note(variable.field, DefaultIs):
        return said.text
    if variable.field.is_required():
        return "required"
    if default in (None, (), "") or isinstance(default, SecretStr):
        return "-"
    return f"`{_text(default)}`"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _meaning(variable: Variable) -> str:
    meaning = variable.field.description or ""
    return meaning + (" *secret*" if variable.secret else "")
