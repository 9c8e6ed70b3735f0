"""Handlers that a team writes in Python: found in the packages that a setting names."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import pkgutil
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from events_worker.handlers.marked import MARK, HandlersUnusable, PythonHandler, on
from events_worker.handlers.routing import Routing
from events_worker.handlers.workflows import OrganizationWorkflows
from worker_runtime.event_patterns import matches
from worker_runtime.importing import account_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from types import ModuleType

__all__ = ["HandlersUnusable", "PythonHandler", "found_handlers", "on", "unheard"]

ENTRY_POINTS = "intelliflow.event_handlers"
OURS = {Routing.name: "the rules'", OrganizationWorkflows.name: "the workflows'"}


def found_handlers(packages: Sequence[str]) -> list[PythonHandler]:
    """Return the handlers of packages, or of entry points by that name, in the order in which they are written.

    Raises `HandlersUnusable` for a package without any, and for a name that is taken.
    """
    handlers: dict[str, PythonHandler] = {}
    for package in packages:
        marked = list(_marked(package))
        if not marked:
            raise HandlersUnusable(f"{package} holds no handler: mark an async function with @on('lead.created')")
        for handler in marked:
            _refuse_taken(handler, handlers.setdefault(handler.name, handler))
    return list(handlers.values())


def unheard(handlers: Iterable[PythonHandler], types: Collection[str], rule_patterns: Collection[str]) -> list[str]:
    """Return a warning for each handler of events that have no contract and that no rule speaks of."""
    known = {*types, *(pattern for pattern in rule_patterns if not pattern.endswith("*"))}
    families = {pattern for pattern in rule_patterns if pattern.endswith(".*")}
    return [
        f"EVENT_HANDLERS: {handler.name} is for {handler.pattern}, of which there is neither a contract nor a rule"
        + _suggestion(handler.pattern, known)
        for handler in handlers
        if not _is_heard_of(handler.pattern, known, families)
    ]


def _refuse_taken(handler: PythonHandler, first: PythonHandler) -> None:
    if whose := OURS.get(handler.name):
        raise HandlersUnusable(f"{handler.place}: {handler.name} is {whose} own name: give it another by name=")
    if handler != first:
        raise HandlersUnusable(
            f"{first.place} and {handler.place} are both named {handler.name}, and receipts go by names: "
            "give one of them another by name="
        )


def _is_heard_of(pattern: str, known: Collection[str], families: Collection[str]) -> bool:
    return any(matches(pattern, one) for one in known) or any(
        matches(pattern, family) or matches(family, pattern) for family in families
    )


def _suggestion(pattern: str, known: Collection[str]) -> str:
    patterns = {*known, *(f"{event_type.partition('.')[0]}.*" for event_type in known)}
    likely = difflib.get_close_matches(pattern.lower(), sorted(patterns), n=1)
    return f"; did you mean {likely[0]}?" if likely else ""


def _marked(package: str) -> Iterator[PythonHandler]:
    modules = list(_modules(package))
    for module in modules:
        for value in vars(module).values():
            # Not getattr: a lazy proxy among the module's values would wake up.
            handler = inspect.getattr_static(value, MARK, None)
            if isinstance(handler, PythonHandler) and _is_at_home(handler, modules):
                if value is not handler.function:
                    raise HandlersUnusable(
                        f"{handler.place} has a decorator above @on, which would not run: put @on first"
                    )
                yield handler


def _is_at_home(handler: PythonHandler, modules: Sequence[ModuleType]) -> bool:
    """Tell a handler of these modules from one that they import from elsewhere.

    A decorator may make it look as if it came from the decorator's module, where it is not to be found, however.
    """
    module = sys.modules.get(handler.function.__module__)
    return module in modules or not any(value is handler.function for value in vars(module).values())


def _modules(package: str) -> Iterator[ModuleType]:
    names = [point.module for point in entry_points(group=ENTRY_POINTS, name=package)] or [package]
    for name in names:
        root = _imported(name)
        yield root
        for _, below, _ in pkgutil.walk_packages(getattr(root, "__path__", ()), f"{root.__name__}."):
            # What `python -m` would run is no part of it.
            if not below.endswith(".__main__"):
                yield _imported(below)


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise HandlersUnusable(_nowhere(name)) from error
        account = account_of(error, name, ours=HandlersUnusable)
        raise HandlersUnusable(f"{name} cannot be imported: {account}") from error


def _nowhere(name: str) -> str:
    points = ", ".join(sorted(point.name for point in entry_points(group=ENTRY_POINTS)))
    return (
        f"{name} is neither a package that Python finds nor one of the installed entry points"
        f" ({points or 'there are none'}): install it, or put the folder that holds it on PYTHONPATH"
    )
