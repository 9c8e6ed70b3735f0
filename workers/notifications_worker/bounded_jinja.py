"""Jinja that ends: a sandbox in which no loop runs on past a deadline and no product grows without bound.

Python cannot stop a thread, so the template itself looks at the clock: a look is compiled into the body of every loop
and every macro. What no loop can be counted in, `2 ** (10 ** 9)` or `[0] * 10 ** 9`, is refused by its size.
"""

from __future__ import annotations

import time
from collections.abc import Sized
from contextlib import contextmanager
from threading import local
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jinja2.runtime import Context

__all__ = ["BoundedEnvironment", "TooMuch"]

MOST_ELEMENTS = 1_000_000
MOST_BITS = 10_000


class TooMuch(jinja2.TemplateRuntimeError):
    """A template went on for too long or would have made something too large. Its message holds none of the data."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """One environment may render in several threads, each within its own deadline."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, loader: jinja2.BaseLoader) -> None:
        super().__init__(
            loader=loader,
            autoescape=lambda name: name is not None and name.endswith(".html.j2"),
            undefined=jinja2.StrictUndefined,
            auto_reload=False,
        )
        del self.globals["lipsum"]  # It makes as much text as it is asked for, in one go.
        self._deadlines = local()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Bound what this thread renders inside; raises `TooMuch` from the template."""
        self._deadlines.seconds = seconds
        self._deadlines.end = time.monotonic() + seconds
        yield

    def look_at_the_clock(self) -> str:
        """Raise `TooMuch` when this thread's time is up; what templates call."""
        if time.monotonic() > self._deadlines.end:
            raise TooMuch(f"takes longer than {self._deadlines.seconds:g} s")
        return ""

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        bodies = [node.body for node in tree.find_all(nodes.For)] + [node.body for node in tree.find_all(nodes.Macro)]
        for body in bodies:
            look = nodes.Call(nodes.EnvironmentAttribute("look_at_the_clock"), [], [], None, None)
            body.insert(0, nodes.ExprStmt(look).set_lineno(1).set_environment(self))
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """See SandboxedEnvironment: multiply and raise to a power, unless that makes something huge."""
        if _power_bits(left, right) > MOST_BITS if operator == "**" else _product_size(left, right) > MOST_ELEMENTS:
            raise TooMuch(f"makes something too large with {operator}")
        return super().call_binop(context, operator, left, right)


def _power_bits(base: Any, exponent: Any) -> int:
    whole = isinstance(base, int) and isinstance(exponent, int)
    return base.bit_length() * max(0, exponent) if whole else 0


def _product_size(left: Any, right: Any) -> int:
    if isinstance(left, int) and isinstance(right, int):
        return left.bit_length() + right.bit_length()
    size, times = (left, right) if isinstance(left, Sized) else (right, left)
    return len(size) * times if isinstance(size, Sized) and isinstance(times, int) else 0
