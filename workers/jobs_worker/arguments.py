"""The arguments of a job, read as what its task says they must be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from worker_runtime.outcome import PermanentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

__all__ = ["Arguments", "read_arguments"]

A = TypeVar("A", bound="Arguments")
WORDS = {"missing": "is missing", "extra_forbidden": "is no argument of this task", "string_too_short": "is empty"}


class Arguments(BaseModel):
    """What one task takes. Written in camelCase, as in all JSON here, or by the names of the fields."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


def read_arguments(kind: type[A], given: Mapping[str, Any]) -> A:
    """Return them; raises `PermanentError` that names each wrong argument and repeats no value."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        wrong = "; ".join(dict.fromkeys(_sentence(detail) for detail in error.errors(include_url=False)))
        raise PermanentError("INVALID_ARGUMENTS", wrong) from None  # The cause would quote them.


def _sentence(detail: ErrorDetails) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    what = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else detail["msg"]
    said = WORDS.get(detail["type"], what)
    return f"{where} {said}" if detail["type"] in WORDS else ": ".join(filter(None, (where, said)))
