"""Fields of models that hold compiled expressions: a mistake in one is found where it is written, when it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import PlainValidator

from worker_runtime.expressions import ExpressionError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["compiled"]

C = TypeVar("C")


def compiled(compile_: Callable[[str], C], noun: str) -> PlainValidator:
    """Return what makes a field of a model hold the compiled source that stands in the file."""

    def compile_source(source: object) -> C:
        if not isinstance(source, str):
            raise ValueError(f"must be {noun}: put it in quotes")  # noqa: TRY004 - pydantic reports values only
        try:
            return compile_(source)
        except ExpressionError as error:
            raise ValueError(str(error)) from error

    return PlainValidator(compile_source, json_schema_input_type=str)
