"""How long one attempt of a task may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["deadline", "deadline_of"]

F = TypeVar("F", bound="Callable[..., Any]")
ATTRIBUTE = "__attempt_seconds__"


def deadline(seconds: float) -> Callable[[F], F]:
    """Give each attempt of a task at most `seconds`; written under `@job_queue.task(...)`.

    An `async def` is cancelled then. A plain function cannot be: its attempt has failed, whatever it returns.
    """
    if seconds <= 0:
        raise ValueError("a deadline is a positive number of seconds")

    def with_deadline(function: F) -> F:
        setattr(function, ATTRIBUTE, float(seconds))
        return function

    return with_deadline


def deadline_of(function: Callable[..., Any], otherwise: float) -> float:
    """Return the seconds an attempt of the task may take."""
    return float(getattr(function, ATTRIBUTE, otherwise))
