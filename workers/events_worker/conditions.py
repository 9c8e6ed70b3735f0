"""The condition of a rule, and which part of it was false."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from events_worker.expressions import Expression
from worker_runtime.expressions import split_at, without_brackets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Condition(Expression):
    """An expression that is asked for its truth alone."""

    def false_because(self, names: Mapping[str, Any]) -> str:
        """Say which parts of a condition that does not hold are false; quotes the source, never data."""
        parts = [f"`{part}`" for part in dict.fromkeys(_false_parts(self.source, names))]
        return f"{parts[0]} is false" if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]} are false"


def _false_parts(source: str, names: Mapping[str, Any]) -> Iterator[str]:
    """Yield the smallest parts that make a false expression false, by the order in which Jinja evaluates."""
    source = without_brackets(source)
    if len(split_at("if", source)) > 1:
        yield source
    elif len(alternatives := split_at("or", source)) > 1:
        for part in alternatives:
            yield from _false_parts(part, names)
    elif len(parts := split_at("and", source)) > 1:
        yield from _false_parts(next(part for part in parts if not Expression(part).truth(names)), names)
    else:
        yield source
