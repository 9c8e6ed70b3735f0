"""The small language of rules and workflows: Jinja2 expressions over JSON, sandboxed, with JSON out.

A field that is missing is false in a condition and gives way to what follows `or`; using it as a value is an error, so
that a notification never says "None" or nothing where a name belongs.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError, TemplateSyntaxError, Undefined, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class ExpressionError(Exception):
    """An expression cannot be used (at the start) or has no value for what is given. Quotes the source, never data."""


class Expression:
    """One compiled expression; `source` is what the person wrote, `names` what it may speak of."""

    def __init__(self, source: str, names: Sequence[str]) -> None:
        """Compile; raises `ExpressionError` for bad syntax, an unknown name or an unknown filter."""
        self.source = source
        with _compiling(source):
            self._evaluate = _language.compile_expression(source, undefined_to_none=False)
            _refuse_what_is_not_ours("{{ (" + source + ") }}", names)

    def truth(self, names: Mapping[str, Any]) -> bool:
        """Return whether the condition holds."""
        with _quoting(self.source):
            return bool(self._evaluate(**names))

    def value(self, names: Mapping[str, Any]) -> Any:
        """Return the value, which is JSON; raises `ExpressionError` when a field it needs is missing."""
        with _quoting(self.source):
            return _json_only(self._evaluate(**names))


class Text:
    """A text with `{{ expressions }}` in it; `names` is what they may speak of."""

    def __init__(self, source: str, names: Sequence[str]) -> None:
        """Compile; raises `ExpressionError` as `Expression` does."""
        self.source = source
        with _compiling(source):
            self._template = _language.from_string(source)
            _refuse_what_is_not_ours(source, names)

    def value(self, names: Mapping[str, Any]) -> str:
        """Return the text; raises `ExpressionError` when a field it needs is missing."""
        with _quoting(self.source):
            return self._template.render(**names)


class _Missing(Undefined):
    """A field that is not there: false, equal to nothing, and an error wherever a value is needed."""

    __slots__ = ()
    __str__ = __iter__ = __len__ = __contains__ = Undefined._fail_with_undefined_error  # noqa: SLF001 - as Jinja's own subclasses do

    def __getattr__(self, name: str) -> _Missing:
        # `payload.company.name` without a company is missing too; Python's own protocols must still find nothing.
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: object) -> _Missing:  # type: ignore[override]  # the stock one never returns
        return self


class _Language(ImmutableSandboxedEnvironment):
    # Jinja works out constants while it compiles: `9 ** 9 ** 9` would hold up the start for ever.
    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        # With a text, `*` repeats and `%` pads, both to any size.
        if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
            raise SecurityError(f"{operator} is for numbers")
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        # Jinja prefers `dict.items` to a field named "items"; JSON has fields and no methods.
        if isinstance(obj, dict):
            return obj[attribute] if attribute in obj else self.undefined(hint=f"there is no field {attribute}")
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        # Jinja's own complaint quotes the key, which may be computed from somebody's data.
        if isinstance(obj, dict):
            return obj[argument] if argument in obj else self.undefined(hint="there is no such field")
        return super().getitem(obj, argument)


_language = _Language(undefined=_Missing, autoescape=False, keep_trailing_newline=True)
_language.globals.clear()


def split_at(word: str, source: str) -> list[str]:
    """Split an expression at a word (`and`, `or`, `if`) that stands in no brackets and no text."""
    parts = [""]
    for kind, token, depth in _tokens(source):
        if kind == "name" and token == word and depth == 0:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts]


def without_brackets(source: str) -> str:
    """Remove round brackets around the whole of an expression."""
    tokens = [(token, depth) for kind, token, depth in _tokens(source) if kind != "whitespace"]
    enclosed = tokens[0][0] == "(" and all(depth > 0 for _, depth in tokens[:-1])
    return without_brackets(source.strip()[1:-1]) if enclosed and tokens[-1][0] == ")" else source.strip()


def _tokens(source: str) -> Iterator[tuple[str, str, int]]:
    """Yield the kind and the text of each token, and in how many brackets one is after it."""
    depth = 0
    for _, kind, text in list(_language.lex("{{ " + source + " }}"))[1:-1]:
        if kind == "operator":
            depth += (text in "([{") - (text in ")]}")
        yield kind, text, depth


def _refuse_what_is_not_ours(template: str, names: Sequence[str]) -> None:
    parsed = _language.parse(template)
    unknown = meta.find_undeclared_variables(parsed) - set(names)
    if unknown:
        raise TemplateSyntaxError(f"unknown name {min(unknown)} (there are {', '.join(names)})", 1)
    if parsed.find(nodes.Pow):
        raise TemplateSyntaxError("** is not part of this language", 1)


@contextmanager
def _compiling(source: str) -> Iterator[None]:
    try:
        with _quoting(source):
            yield
    except ExpressionError:
        raise
    except Exception as error:
        # Whatever Jinja or Python's own compiler makes of a text, its author needs the line it stands in.
        raise ExpressionError(f"`{source}`: cannot be compiled ({type(error).__name__})") from error


@contextmanager
def _quoting(source: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into an `ExpressionError` that quotes the source."""
    try:
        yield
    except TemplateError as error:
        raise ExpressionError(f"`{source}`: {error.message}") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # Their texts may quote somebody's data.
        raise ExpressionError(f"`{source}`: {type(error).__name__}") from error


def _json_only(value: Any) -> Any:
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()  # noqa: SLF001 - documented for subclasses of Undefined
    json.dumps(value, allow_nan=False)
    return value
