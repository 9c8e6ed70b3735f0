"""Jinja2 as far as it is ours: no methods but those of texts, no filter that makes much of little, all work counted.

Who writes rules and workflows may be a tenant, and what they compute with may be anybody's. Whatever goes through a
value, or makes a larger one, is charged to an allowance (`worker_runtime.allowance`) before it is done.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from jinja2 import Undefined, filters, nodes, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import htmlsafe_json_dumps
from jinja2.visitor import NodeTransformer
from markupsafe import escape

from worker_runtime.allowance import MOST_INTEGER_BITS, TooMuchWork, charge, weigh, weight

if TYPE_CHECKING:
    from collections.abc import Callable

    from jinja2.runtime import Context

__all__ = ["STATEMENTS", "Missing", "language", "text_of"]

MOST_CHARACTERS = 1_000_000
MOST_DIGITS = 20

# Filters by what of their first argument they go through: nothing, its items, or its text.
AT_ONCE = ("abs", "count", "d", "default", "filesizeformat", "first", "float", "int", "last", "length")
ITEM_BY_ITEM = (
    *("dictsort", "groupby", "items", "list", "map", "max", "min", "reject", "rejectattr", "reverse", "select"),
    *("selectattr", "sort", "unique"),
)
AS_TEXT = ("capitalize", "lower", "title", "trim", "truncate", "upper", "wordcount")
# Tests that go through what they are given.
COMPARING = (
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "eq",
    "equalto",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "le",
    "lessthan",
    "lt",
    "ne",
)
LOOP = frozenset({"first", "index", "index0", "last", "length", "revindex", "revindex0"})
GROUP = frozenset({"grouper", "list"})
TEXT_METHODS = frozenset(
    {
        *(
            "capitalize",
            "casefold",
            "count",
            "endswith",
            "find",
            "isalnum",
            "isalpha",
            "isdigit",
            "isnumeric",
            "isspace",
        ),
        *("join", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rpartition"),
        *("rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper"),
    }
)
# `{% for %}` and `{% if %}` help a text to list things; the rest is for pages of templates.
STATEMENTS = (nodes.Assign, nodes.For, nodes.If, nodes.Output)


class Missing(Undefined):
    """A field that is not there: false, equal to nothing, and an error wherever a value is needed."""

    __slots__ = ()
    __str__ = __iter__ = __len__ = __contains__ = Undefined._fail_with_undefined_error  # noqa: SLF001 - as Jinja's own subclasses do

    def __getattr__(self, name: str) -> Missing:
        # `payload.company.name` without a company is missing too; Python's own protocols must still find nothing.
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: object) -> Missing:  # type: ignore[override]  # the stock one never returns
        return self


class Language(ImmutableSandboxedEnvironment):
    """The environment. Compile and evaluate within an allowance: Jinja works out constants while it compiles."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=Missing, autoescape=False, keep_trailing_newline=True, finalize=_shown, optimized=False
        )
        self.globals.clear()
        self.filters = _our_filters()
        self.tests = {
            name: _charged(cast("Any", test)) if name in COMPARING else test for name, test in self.tests.items()
        }

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """See `SandboxedEnvironment`."""
        if isinstance(left, (int, float)) and isinstance(right, (int, float)):
            if operator == "*" and _bits(left) + _bits(right) > MOST_INTEGER_BITS:
                raise TooMuchWork("makes a number of too many digits")
            return super().call_binop(context, operator, left, right)
        if isinstance(left, Undefined) or isinstance(right, Undefined):
            return super().call_binop(context, operator, left, right)
        if operator != "+":
            # With a text, `*` repeats and `%` pads, both to any size.
            raise SecurityError(f"{operator} is for numbers")
        return _added(left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """See `Environment`: JSON has fields and no methods, but for those of texts."""
        if isinstance(obj, dict):
            return obj[attribute] if attribute in obj else self.undefined(hint=f"there is no field {attribute}")
        if isinstance(obj, Undefined):
            return getattr(obj, attribute)
        if isinstance(obj, str) and attribute in TEXT_METHODS:
            return functools.partial(_by_method, obj, attribute)
        if (isinstance(obj, LoopContext) and attribute in LOOP) or (isinstance(obj, tuple) and attribute in GROUP):
            return super().getattr(obj, attribute)
        return self.undefined(hint=f"there is no field {attribute}")

    def getitem(self, obj: Any, argument: Any) -> Any:
        """See `Environment`; Jinja's own complaint quotes the key, which may be computed from somebody's data."""
        charge(1)
        if isinstance(obj, dict):
            return obj[argument] if argument in obj else self.undefined(hint="there is no such field")
        if isinstance(obj, (str, list, tuple)) and isinstance(argument, int):
            return obj[argument] if -len(obj) <= argument < len(obj) else self.undefined(hint="there is no such item")
        if isinstance(obj, Undefined):
            return obj[argument]
        return self.undefined(hint="there is no such field")

    def is_safe_callable(self, obj: Any) -> bool:
        """See `SandboxedEnvironment`: what can be called is a text's method."""
        return isinstance(obj, (functools.partial, Undefined))

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Counting().visit(source).set_environment(self), *args, **kwargs)


class _Counting(NodeTransformer):
    """Puts in front of whatever goes through a value a filter that charges for it; nobody can write their names."""

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        node.expr = _counted(node.expr)
        for operand in node.ops:
            operand.expr = _counted(operand.expr)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes), "texts in a row")

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _filtered(cast("nodes.Expr", node.iter), "item by item")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        bounds = [bound or nodes.Const(None) for bound in (node.arg.start, node.arg.stop, node.arg.step)]
        return _filtered(node.node, "part of it", *bounds)


def _counted(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filtered(node, "gone through")


def _filtered(node: nodes.Expr, name: str, *arguments: nodes.Expr) -> nodes.Expr:
    return nodes.Filter(node, name, list(arguments), [], None, None)


def _our_filters() -> dict[str, Callable[..., Any]]:
    stock = filters.FILTERS
    return {
        **{name: stock[name] for name in AT_ONCE},
        **{name: _charged(stock[name]) for name in ITEM_BY_ITEM},
        **{name: _charged(_taking_text(stock[name])) for name in AS_TEXT},
        "e": _escaped,
        "escape": _escaped,
        "join": _joined,
        "replace": _replaced,
        "round": _rounded,
        "string": text_of,
        "sum": _charged(_summed),
        "tojson": _as_json,
        "urlencode": _url_encoded,
        "gone through": _gone_through,
        "item by item": _item_by_item,
        "part of it": _part,
        "texts in a row": _in_a_row,
    }


def _charged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def charged(*args: Any, **kwargs: Any) -> Any:
        charge(1 + sum(map(weight, args)) + sum(map(weight, kwargs.values())))
        return _paid(function(*args, **kwargs))

    return charged


def _paid(result: Any) -> Any:
    """Charge for a result, and make a list of what would be worked out bit by bit."""
    if isinstance(result, Iterator):
        items = []
        for item in result:
            charge(1)
            items.append(item)
        return items
    charge(weight(result))
    return result


def _taking_text(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def taking_text(*args: Any, **kwargs: Any) -> Any:
        # A filter that is handed the environment has it in front.
        place = 1 if hasattr(function, "jinja_pass_arg") else 0
        return function(*args[:place], text_of(args[place]), *args[place + 1 :], **kwargs)

    return taking_text


def text_of(value: Any) -> str:
    """Return a value as a text that is not too large; raises what a missing one does."""
    if isinstance(value, (dict, list, tuple)):
        charge(weigh(value, MOST_CHARACTERS) >> 7)
    return str(value)


def _shown(value: Any) -> Any:
    return text_of(value) if isinstance(value, (dict, list, tuple)) else value


def _sized(characters: int) -> None:
    """Charge for a text that is about to be made."""
    if characters > MOST_CHARACTERS:
        raise TooMuchWork("makes something too large")
    charge(1 + (characters >> 7))


def _added(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        _sized(len(left) + len(right))
    elif isinstance(left, list) and isinstance(right, list):
        charge(1 + len(left) + len(right))
    return left + right


def _in_a_row(parts: list[Any]) -> str:
    texts = [text_of(part) for part in parts]
    _sized(sum(map(len, texts)))
    return "".join(texts)


@pass_environment
def _joined(environment: Language, value: Any, d: Any = "", attribute: Any = None) -> str:
    get = filters.make_attrgetter(environment, attribute) if attribute is not None else None
    charge(1 + weight(value))
    texts = [text_of(get(item) if get else item) for item in value]
    _sized(sum(map(len, texts)) + len(text_of(d)) * len(texts))
    return text_of(d).join(texts)


def _replaced(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, gone, come = text_of(value), text_of(old), text_of(new)
    charge(1 + weight(text))
    times = text.count(gone) if count is None or count < 0 else min(text.count(gone), count)
    _sized(len(text) + times * max(0, len(come) - len(gone)))
    return text.replace(gone, come, times)


def _rounded(value: Any, precision: int = 0, method: Any = "common") -> float:
    if abs(precision) > MOST_DIGITS:
        raise TooMuchWork("rounds to too many digits")
    return filters.do_round(value, precision, method)


@pass_environment
def _summed(environment: Language, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    if not isinstance(start, (int, float)):
        raise SecurityError("sum is for numbers")
    return filters.sync_do_sum(environment, value, attribute, start)


def _as_json(value: Any) -> str:
    charge(weigh(value, MOST_CHARACTERS) >> 7)
    return str(htmlsafe_json_dumps(value, sort_keys=True))


def _url_encoded(value: Any) -> str:
    charge(weigh(value, MOST_CHARACTERS) >> 7)
    encoded = filters.do_urlencode(value)
    # Jinja's own leaves a text its `/`, by which it would be several parts of a path.
    return encoded if isinstance(value, (dict, list, tuple)) else encoded.replace("/", "%2F")


def _escaped(value: Any) -> str:
    text = text_of(value)
    _sized(len(text))
    return str(escape(text))


def _gone_through(value: Any) -> Any:
    charge(weight(value))
    return value


def _item_by_item(value: Any) -> Any:
    charge(1 + (len(value) if isinstance(value, (str, list, tuple, dict)) else 0))
    return value


def _part(value: Any, start: Any, stop: Any, step: Any) -> Any:
    charge(1 + weight(value))
    return value[start:stop:step]


def _by_method(text: str, method: str, *args: Any, **kwargs: Any) -> Any:
    if method == "replace":
        return _replaced(text, *args, **kwargs)
    if method == "join":
        return _joined(language, args[0], text)
    charge(1 + weight(text) + sum(map(weight, args)))
    return _paid(getattr(text, method)(*args, **kwargs))


def _bits(number: float) -> int:
    return number.bit_length() if isinstance(number, int) else 0


language = Language()
