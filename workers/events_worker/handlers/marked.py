"""`@on`: what makes a function of a team the handler of events."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from worker_runtime.outcome import Done, Outcome

if TYPE_CHECKING:
    from events_worker.context import HandlerContext
    from events_worker.event import EventJob

log = structlog.get_logger()

MARK = "__event_handler__"
PATTERN = re.compile(r"\*|[^\s*,]+\.\*|[^\s*,]+")
TIMEOUT_SECONDS = 30.0
LONGEST_TIMEOUT_SECONDS = 60.0
# A result is for people who look at the job; Redis keeps it for a day.
MOST_RESULT_BYTES = 4096

Handle = Callable[["EventJob", "HandlerContext"], Awaitable[Any]]
H = TypeVar("H", bound=Handle)


class HandlersUnusable(Exception):
    """EVENT_HANDLERS names something that cannot be loaded, or that is no handler; the message says what to do."""


@dataclass(frozen=True, slots=True)
class PythonHandler:
    """See `EventHandler`."""

    name: str
    pattern: str
    timeout_seconds: float
    function: Handle

    @property
    def place(self) -> str:
        """Where it is written, for people: `crm.handlers.count_lead`."""
        return place_of(self.function)

    async def handle(self, event: EventJob, context: HandlerContext) -> Outcome:
        """Run it. What it returns is an outcome, or the small JSON result of having done it."""
        returned = await self.function(event, context)
        outcome = returned if isinstance(returned, Outcome) else Done(returned)
        return Done(self._presentable(outcome.result)) if isinstance(outcome, Done) else outcome

    def _presentable(self, result: Any) -> Any:
        """Leave a result out that the queue could not keep: what was done is done, and is not done again for that."""
        reason = objection_to(result)
        if reason:
            log.warning("handler_result_left_out", handler=self.name, reason=reason)
        return None if reason else result


def on(pattern: str, *, name: str = "", timeout_seconds: float = TIMEOUT_SECONDS) -> Callable[[H], H]:
    """Mark an `async def f(event, context)` as the handler of events: `lead.created`, `lead.*` or `*`.

    Its receipts carry its `name`, the function's unless another is given: keep it when the function is renamed.
    Raises `HandlersUnusable` for what cannot be a handler.
    """
    if not PATTERN.fullmatch(pattern):
        raise HandlersUnusable(f"on({pattern!r}): name the events to handle: 'lead.created', 'lead.*' or '*'")
    if not 0 < timeout_seconds <= LONGEST_TIMEOUT_SECONDS:
        most = f"{LONGEST_TIMEOUT_SECONDS:g}"
        raise HandlersUnusable(f"timeout_seconds={timeout_seconds:g} must be above 0 and at most {most}")

    def mark(function: H) -> H:
        if reason := objection_as_handler(function):
            raise HandlersUnusable(f"{place_of(function)} {reason}")
        setattr(function, MARK, PythonHandler(name or function.__name__, pattern, timeout_seconds, function))
        return function

    return mark


def objection_as_handler(function: Any) -> str:
    """Say why something cannot be a handler; empty when it can."""
    if not inspect.isfunction(function) or not inspect.iscoroutinefunction(function):
        return "must be an `async def` to be a handler"
    if inspect.getattr_static(function, MARK, None) is not None:
        return "has @on twice: write a second function for other events"
    outside, _, _ = function.__qualname__.rpartition(".")
    if outside and not outside.endswith("<locals>"):
        return "is a method: a handler is a function of a module"
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return "must take two arguments to be a handler: (event, context)"
    return ""


def objection_to(result: Any) -> str:
    """Say why a result cannot be kept beside the job; empty when it can."""
    if result is None:
        return ""
    try:
        size = len(json.dumps(result, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return f"{type(result).__name__} is not JSON, or holds something that is not"
    return f"it has {size} bytes, and {MOST_RESULT_BYTES} are kept" if size > MOST_RESULT_BYTES else ""


def place_of(function: Any) -> str:
    """Name a function by its module, as far as it has one."""
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if name else repr(function)
