"""What is wrong with a configuration, said so that a person can put it right: one line for each variable."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker_runtime.settings.environment import Unreadable
from worker_runtime.settings.variables import Variable, variables_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

SIMILAR = 0.8
# Read by others: OpenTelemetry's own SDK has dozens beside the one that is ours.
FOREIGN_PREFIXES = ("OTEL_",)
# Variables that belong to one worker, known to all: a shared environment file is no reason for a warning.
ELSEWHERE = frozenset(Path(__file__).with_name("elsewhere.txt").read_text(encoding="ascii").split())
WORDS = {
    "missing": "is not set",
    "int_parsing": "is not a whole number",
    "int_from_float": "is not a whole number",
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "greater_than_equal": "is too small",
    "less_than_equal": "is too large",
    "literal_error": "is none of the choices",
    "string_too_short": "is empty",
    "too_short": "is an empty list",
    "string_pattern_mismatch": "has the wrong form",
}


class SettingsError(Exception):
    """The environment does not make a configuration. `problems` has a line for each variable that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def problems_in(settings_type: type[BaseModel], error: ValidationError) -> list[str]:
    """Return one line for each wrong variable: its name, what is wrong, what is allowed. No secret is repeated."""
    by_where = {variable.where: variable for variable in variables_of(settings_type)}
    lines: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        place = tuple(str(part) for part in detail["loc"])
        variable = by_where.get(place[:1]) or by_where.get(place[:3])
        if variable is None:
            lines[".".join(place)] = _what(detail)
        else:
            lines.setdefault(variable.name, f"{_accusation(variable, detail)}; allowed: {variable.allowed}")
    return list(lines.values())


def near_misses(settings_type: type[BaseModel], names: Iterable[str]) -> list[str]:
    """Return a warning for each set variable that nobody reads and that looks like one that somebody would."""
    known = _known(settings_type)
    warnings = []
    for name in names:
        if name in known or name.startswith(FOREIGN_PREFIXES):
            continue
        if likely := difflib.get_close_matches(name, known, n=1, cutoff=SIMILAR):
            warnings.append(f"{name} is not a variable of this worker; did you mean {likely[0]}?")
    return warnings


def _known(settings_type: type[BaseModel]) -> set[str]:
    variables = variables_of(settings_type)
    files = {f"{variable.name}_FILE" for variable in variables if variable.secret}
    return {variable.name for variable in variables} | files | ELSEWHERE


def _accusation(variable: Variable, detail: ErrorDetails) -> str:
    given: Any = detail.get("input")
    hidden = isinstance(given, Unreadable) or variable.secret or detail["type"] == "missing"
    name = variable.name if hidden else f"{variable.name}={given!r}"
    return f"{name} {WORDS[detail['type']]}" if _in_words(detail) else f"{name}: {_what(detail)}"


def _in_words(detail: ErrorDetails) -> bool:
    return detail["type"] in WORDS and not isinstance(detail.get("input"), Unreadable)


def _what(detail: ErrorDetails) -> str:
    given = detail.get("input")
    if isinstance(given, Unreadable):
        return given.why
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return WORDS.get(detail["type"], detail["msg"])
