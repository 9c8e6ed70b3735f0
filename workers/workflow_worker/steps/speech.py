"""What steps are written in: expressions over input, earlier steps and the execution, in texts and in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from worker_runtime import expressions
from worker_runtime.expression_fields import compiled
from worker_runtime.expressions import ExpressionError
from worker_runtime.yaml_source import Complaint, Mistakes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker_runtime.yaml_source import Place

__all__ = ["NAMES", "Expression", "ExpressionField", "NumberField", "Text", "TextField", "Values", "ValuesField"]

NAMES = ("input", "steps", "execution")


class Expression(expressions.Expression):
    """An expression in a step."""

    def __init__(self, source: str) -> None:
        super().__init__(source, NAMES)


class Text(expressions.Text):
    """A text with expressions in it."""

    def __init__(self, source: str) -> None:
        super().__init__(source, NAMES)


class Values:
    """JSON in which every text is an expression; numbers, true, false and null are themselves."""

    def __init__(self, written: Any) -> None:
        """Compile; raises `Mistakes`."""
        self.expressions: list[tuple[Place, Expression]] = []
        mistakes: list[Complaint] = []
        self._compiled = self._compile(written, (), mistakes)
        if mistakes:
            raise Mistakes(mistakes)

    def value(self, evaluate: Callable[[Place, Expression], Any]) -> Any:
        """Return the JSON with each expression's value in its place."""
        return _filled(self._compiled, (), evaluate)

    def _compile(self, written: Any, place: Place, mistakes: list[Complaint]) -> Any:
        if isinstance(written, dict):
            return {key: self._compile(value, (*place, key), mistakes) for key, value in written.items()}
        if isinstance(written, list):
            return [self._compile(value, (*place, index), mistakes) for index, value in enumerate(written)]
        if not isinstance(written, str):
            return written
        try:
            compiled_one = Expression(written)
        except ExpressionError as error:
            mistakes.append(Complaint(place, str(error)))
            return None
        self.expressions.append((place, compiled_one))
        return compiled_one


def _filled(part: Any, place: Place, evaluate: Callable[[Place, Expression], Any]) -> Any:
    if isinstance(part, dict):
        return {key: _filled(value, (*place, key), evaluate) for key, value in part.items()}
    if isinstance(part, list):
        return [_filled(value, (*place, index), evaluate) for index, value in enumerate(part)]
    return evaluate(place, part) if isinstance(part, Expression) else part


def expressions_in(value: Any, place: Place = ()) -> Iterator[tuple[Place, Expression | Text]]:
    """Yield what is compiled in the value of a model's field, and where."""
    if isinstance(value, (Expression, Text)):
        yield place, value
    elif isinstance(value, Values):
        yield from (((*place, *within), one) for within, one in value.expressions)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from expressions_in(one, (*place, key))


def _number(written: object) -> float | Expression:
    if isinstance(written, str):
        try:
            return Expression(written)
        except ExpressionError as error:
            raise ValueError(str(error)) from error
    if isinstance(written, bool) or not isinstance(written, (int, float)):
        raise ValueError("must be a number, or an expression in quotes")  # noqa: TRY004 - pydantic reports values only
    return written


def _described(kind: str, what: str) -> WithJsonSchema:
    return WithJsonSchema({"type": kind, "description": what})


ExpressionField = Annotated[Expression, compiled(Expression, "an expression"), _described("string", "an expression")]
TextField = Annotated[Text, compiled(Text, "a text"), _described("string", "a text with {{ expressions }}")]
ValuesField = Annotated[
    Values, PlainValidator(Values), WithJsonSchema({"description": "JSON in which every text is an expression"})
]
NumberField = Annotated[
    float | Expression,
    PlainValidator(_number),
    WithJsonSchema({"type": ["number", "string"], "description": "a number, or an expression"}),
]
