"""The table `sms_errors.yaml`: what a provider's error code means. Read and checked once, when this is imported."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["ERRORS", "ErrorClass", "KnownError", "MalformedTable", "known_error", "read_table"]

TABLE = Path(__file__).with_name("sms_errors.yaml")


class ErrorClass(StrEnum):
    """What follows from an error; the table's head explains them."""

    REJECTED = "rejected"
    OPTED_OUT = "opted_out"
    MISCONFIGURED = "misconfigured"
    RATE_LIMITED = "rate_limited"
    BUSY = "busy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class KnownError:
    """One line of the table."""

    kind: ErrorClass
    meaning: str
    source: str


class MalformedTable(Exception):
    """The table is not what this version reads; the sentence names the line's provider and code."""


def known_error(provider: str, *codes: str | None) -> KnownError | None:
    """Return the line of the first of these codes that has one."""
    return next((ERRORS[provider, code] for code in codes if code and (provider, code) in ERRORS), None)


def read_table(text: str) -> dict[tuple[str, str], KnownError]:
    """Read the table by provider and code. Raises MalformedTable."""
    _refuse_repetitions(yaml.compose(text))
    table: dict[tuple[str, str], KnownError] = {}
    for provider, code, error in _lines(yaml.safe_load(text)):
        if (provider, code) in table:
            raise MalformedTable(f"{provider} {code} is in two classes")
        table[provider, code] = error
    return table


def _lines(providers: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, KnownError]]:
    for provider, classes in providers.items():
        source = classes.get("source")
        if not isinstance(source, str) or not source.startswith("https://"):
            raise MalformedTable(f"{provider} has no source")
        for name, meanings in classes.items():
            if name != "source":
                yield from _class_lines(provider, name, meanings, source)


def _class_lines(provider: str, name: str, meanings: Any, source: str) -> Iterator[tuple[str, str, KnownError]]:
    if name not in set(ErrorClass):
        raise MalformedTable(f"{provider} {name} is no class; allowed: {', '.join(ErrorClass)}")
    for code, meaning in meanings.items():
        if not isinstance(meaning, str) or not meaning:
            raise MalformedTable(f"{provider} {code} has no meaning")
        yield provider, str(code), KnownError(ErrorClass(name), meaning, source.replace("{code}", str(code)))


def _refuse_repetitions(node: yaml.Node | None) -> None:
    """YAML itself takes the last of two lines with one key, and says nothing."""
    if not isinstance(node, yaml.MappingNode):
        return
    keys = [key.value for key, _ in node.value]
    if repeated := {key for key in keys if keys.count(key) > 1}:
        raise MalformedTable(f"{', '.join(sorted(repeated))} is there twice")
    for _, value in node.value:
        _refuse_repetitions(value)


ERRORS = read_table(TABLE.read_text(encoding="utf-8"))
