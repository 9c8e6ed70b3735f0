"""Handlers that a team writes in Python: marked functions in packages that a setting names."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from worker_runtime.outcome import Done, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from events_worker.context import HandlerContext
    from events_worker.event import EventJob

ENTRY_POINTS = "intelliflow.event_handlers"
MARK = "__event_handler__"
TIMEOUT_SECONDS = 30.0
LONGEST_TIMEOUT_SECONDS = 60.0

Handle = Callable[["EventJob", "HandlerContext"], Awaitable[Any]]


class HandlersUnusable(Exception):
    """EVENT_HANDLERS names something that cannot be loaded, or that is no handler; the message says what to do."""


@dataclass(frozen=True, slots=True)
class PythonHandler:
    """See `EventHandler`."""

    name: str
    pattern: str
    timeout_seconds: float
    function: Handle

    async def handle(self, event: EventJob, context: HandlerContext) -> Outcome:
        """Run it. What it returns is an outcome, or the small JSON result of having done it."""
        returned = await self.function(event, context)
        return returned if isinstance(returned, Outcome) else Done(returned)


def on(pattern: str, *, name: str = "", timeout_seconds: float = TIMEOUT_SECONDS) -> Callable[[Handle], Handle]:
    """Mark an `async def f(event, context)` as the handler of events: `lead.created`, `lead.*` or `*`.

    Its receipts carry its `name`, the function's unless another is given: keep it when the function is renamed.
    Raises `HandlersUnusable` for what cannot be a handler.
    """
    if not pattern:
        raise HandlersUnusable("on() needs the events to handle: 'lead.created', 'lead.*' or '*'")
    if not 0 < timeout_seconds <= LONGEST_TIMEOUT_SECONDS:
        raise HandlersUnusable(
            f"timeout_seconds={timeout_seconds:g} must be above 0 and at most {LONGEST_TIMEOUT_SECONDS:g}"
        )

    def mark(function: Handle) -> Handle:
        if not inspect.iscoroutinefunction(function):
            raise HandlersUnusable(f"{function.__qualname__} must be an `async def` to be a handler")
        handler = PythonHandler(name or function.__name__, pattern, timeout_seconds, function)
        setattr(function, MARK, handler)
        return function

    return mark


def found_handlers(packages: Sequence[str], taken: set[str]) -> list[PythonHandler]:
    """Return the handlers of packages, or of entry points by that name, in the order in which they are written.

    Raises `HandlersUnusable` for a package without any, and for a name that is taken.
    """
    handlers: dict[str, PythonHandler] = {}
    for package in packages:
        marked = list(_marked(package))
        if not marked:
            raise HandlersUnusable(f"{package} holds no handler: mark an async function with @on('lead.created')")
        for handler in marked:
            if handler.name in taken or handlers.setdefault(handler.name, handler) != handler:
                raise HandlersUnusable(f"{package} has a second handler named {handler.name}: give it another name=")
    return list(handlers.values())


def _marked(package: str) -> Iterator[PythonHandler]:
    for module in _modules(package):
        for value in vars(module).values():
            handler = getattr(value, MARK, None)
            # Imported from elsewhere, it is that module's.
            if isinstance(handler, PythonHandler) and handler.function.__module__ == module.__name__:
                yield handler


def _modules(package: str) -> Iterator[ModuleType]:
    names = [point.value for point in entry_points(group=ENTRY_POINTS, name=package)] or [package]
    for name in names:
        root = _imported(name)
        yield root
        for _, below, _ in pkgutil.walk_packages(getattr(root, "__path__", ()), f"{root.__name__}."):
            yield _imported(below)


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise HandlersUnusable(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
