"""The small language of rules and workflows: Jinja2 expressions over JSON, sandboxed, with JSON out.

A field that is missing is false in a condition and gives way to what follows `or`; using it as a value is an error, so
that a notification never says "None" or nothing where a name belongs.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError, TemplateSyntaxError, Undefined, nodes

from worker_runtime.allowance import TooMuchWork, allowance, charge, weigh
from worker_runtime.expression_language import MOST_CHARACTERS, STATEMENTS, language

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Expression", "ExpressionError", "Text", "split_at", "without_brackets"]

# An evaluation ends after a fifth of a second, whatever it is given; what people write takes a thousandth of that.
MOST_WORK = 200_000
LONGEST_EXPRESSION = 5_000
LONGEST_TEXT = 65_536
SHOWN_CHARACTERS = 1_000


class ExpressionError(Exception):
    """An expression cannot be used (at the start) or has no value for what is given. Quotes the source, never data."""


class Expression:
    """One compiled expression; `source` is what the person wrote, `names` what it may speak of."""

    def __init__(self, source: str, names: Sequence[str]) -> None:
        """Compile; raises `ExpressionError` for bad syntax, an unknown name or an unknown filter."""
        self.source = source
        with _compiling(source, LONGEST_EXPRESSION):
            self._evaluate = language.compile_expression(source, undefined_to_none=False)
            self._parsed = _parsed("{{ (" + source + ") }}", names)

    def fields_of(self, name: str) -> frozenset[str]:
        """Return the fields of a name that are spoken of: of `steps` in `steps.a.x > steps['b'].y` a and b."""
        return _fields(self._parsed, name)

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
        with _compiling(source, LONGEST_TEXT):
            self._template = language.from_string(source)
            self._parsed = _parsed(source, names)

    def fields_of(self, name: str) -> frozenset[str]:
        """See `Expression`."""
        return _fields(self._parsed, name)

    def value(self, names: Mapping[str, Any]) -> str:
        """Return the text; raises `ExpressionError` when a field it needs is missing."""
        with _quoting(self.source):
            return "".join(_bounded(self._template.generate(**names)))


def _bounded(pieces: Iterator[str]) -> Iterator[str]:
    characters = 0
    for piece in pieces:
        charge(1)
        characters += len(piece)
        if characters > MOST_CHARACTERS:
            raise TooMuchWork("makes something too large")
        yield piece


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
    for _, kind, text in list(language.lex("{{ " + source + " }}"))[1:-1]:
        if kind == "operator":
            depth += (text in "([{") - (text in ")]}")
        yield kind, text, depth


def _parsed(template: str, names: Sequence[str]) -> nodes.Template:
    """Parse what has been compiled, and refuse what is not part of the language."""
    parsed = language.parse(template)
    unknown = _spoken_of(parsed) - set(names)
    if unknown:
        raise TemplateSyntaxError(f"unknown name {min(unknown)} (there are {', '.join(names)})", 1)
    if parsed.find(nodes.Pow):
        raise TemplateSyntaxError("** is not part of this language", 1)
    if any(isinstance(one.value, float) and not math.isfinite(one.value) for one in parsed.find_all(nodes.Const)):
        # Jinja would write it down as `inf`, which is a name.
        raise TemplateSyntaxError("a number is too large", 1)
    for statement in parsed.find_all(nodes.Stmt):
        if not isinstance(statement, STATEMENTS) or getattr(statement, "recursive", False):
            raise TemplateSyntaxError(f"{{% {type(statement).__name__.lower()} %}} is not part of this language", 1)
    return parsed


def _spoken_of(parsed: nodes.Template) -> set[str]:
    """Return the names that are used and not given by the template itself, with `for` or `set`."""
    names = list(parsed.find_all(nodes.Name))
    given = {name.name for name in names if name.ctx != "load"} | ({"loop"} if parsed.find(nodes.For) else set())
    return {name.name for name in names} - given


def _fields(parsed: nodes.Template, name: str) -> frozenset[str]:
    by_name = (node.attr for node in parsed.find_all(nodes.Getattr) if _is_name(node.node, name))
    by_key = (
        node.arg.value
        for node in parsed.find_all(nodes.Getitem)
        if _is_name(node.node, name) and isinstance(node.arg, nodes.Const)
    )
    return frozenset([*by_name, *(key for key in by_key if isinstance(key, str))])


def _is_name(node: nodes.Node, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name


@contextmanager
def _compiling(source: str, most_characters: int) -> Iterator[None]:
    if len(source) > most_characters:
        raise ExpressionError(f"{_quoted(source)}: has more than {most_characters} characters")
    try:
        with _quoting(source):
            yield
    except ExpressionError:
        raise
    except Exception as error:
        # Whatever Jinja or Python's own compiler makes of a text, its author needs the line it stands in.
        raise ExpressionError(f"{_quoted(source)}: cannot be compiled ({type(error).__name__})") from error


@contextmanager
def _quoting(source: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into an `ExpressionError` that quotes the source."""
    try:
        with allowance(MOST_WORK):
            yield
    except TemplateError as error:
        raise ExpressionError(f"{_quoted(source)}: {error.message}") from error
    except TooMuchWork as error:
        raise ExpressionError(f"{_quoted(source)}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        # Their texts may quote somebody's data.
        raise ExpressionError(f"{_quoted(source)}: {type(error).__name__}") from error


def _quoted(source: str) -> str:
    return f"`{source}`" if len(source) <= SHOWN_CHARACTERS else f"`{source[:SHOWN_CHARACTERS]}...`"


def _json_only(value: Any) -> Any:
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()  # noqa: SLF001 - documented for subclasses of Undefined
    weigh(value, MOST_CHARACTERS)
    return value
