"""Workflows and functions that a team writes in Python: marked in the packages that WORKFLOW_PACKAGES names.

    @workflow("order.fulfil", version=2)
    async def fulfil(ctx: WorkflowContext) -> dict: ...

    @function("pricing.quote")
    async def quote(step: StepCall, *, amount: int) -> int: ...

An execution stays with the version that it began with: keep the old one beside the new as long as some of its
executions are under way.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from worker_runtime.importing import account_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

__all__ = ["Registry", "WorkflowsUnusable", "found_workflows", "function", "workflow"]

MARK = "__workflow__"
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


class WorkflowsUnusable(Exception):
    """WORKFLOW_PACKAGES names something that cannot be loaded or used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Marked:
    """What a decorator has marked; `version` is 0 for a function."""

    name: str
    version: int
    code: Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Registry:
    """What this worker has: workflows by name and version, functions by name."""

    workflows: dict[tuple[str, int], Callable[..., Awaitable[Any]]] = field(default_factory=dict)
    functions: dict[str, Callable[..., Awaitable[Any]]] = field(default_factory=dict)

    def newest(self, name: str) -> int | None:
        """Return the newest version of a workflow."""
        return max((version for known, version in self.workflows if known == name), default=None)


def workflow(name: str, *, version: int = 1) -> Callable[[F], F]:
    """Mark an `async def f(ctx)` as that version of a workflow; raises `WorkflowsUnusable`."""
    if not _is_name(name) or type(version) is not int or version < 1:
        what = f"workflow({_written(name)}, version={version!r})"
        raise WorkflowsUnusable(f"{what}: needs a name, and as version a whole number from 1 on")
    return _marking(name, version, _objection_to_workflow)


def function(name: str) -> Callable[[F], F]:
    """Mark an `async def f(step, **arguments)` as a function that the step `call` knows by that name."""
    if not _is_name(name):
        raise WorkflowsUnusable(f"function({_written(name)}): needs a name: @function('its.name')")
    return _marking(name, 0, _objection_to_function)


def found_workflows(packages: Iterable[str]) -> Registry:
    """Return what is marked in these packages, and in the modules below them.

    Raises `WorkflowsUnusable` for a package without any, one that cannot be imported, and a name that is taken.
    """
    found = Registry()
    for package in packages:
        marked = list(_marked(package))
        if not marked:
            how = "mark an async function with @workflow('its.name') or @function('its.name')"
            raise WorkflowsUnusable(f"{package} holds no workflow and no function: {how}")
        for one in marked:
            _add(found, one)
    return found


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name.strip())


def _written(name: Any) -> str:
    # A decorator without its brackets is given what it decorates.
    return _place(name) if callable(name) else repr(name)


def _marking(name: str, version: int, objection: Callable[[Any], str]) -> Callable[[F], F]:
    def mark(code: F) -> F:
        if reason := objection(code):
            raise WorkflowsUnusable(f"{_place(code)} {reason}")
        setattr(code, MARK, Marked(name, version, code))
        return code

    return mark


def _objection_to_workflow(code: Any) -> str:
    if not inspect.iscoroutinefunction(code):
        return "must be an `async def` to be a workflow"
    try:
        inspect.signature(code).bind(None)
    except TypeError:
        return "must take one argument to be a workflow: (ctx)"
    return ""


def _objection_to_function(code: Any) -> str:
    if not inspect.iscoroutinefunction(code):
        return "must be an `async def` to be a function of workflows"
    first = next(iter(inspect.signature(code).parameters.values()), None)
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        return "must take the step as its first argument to be a function of workflows: (step, *, amount)"
    return ""


def _add(found: Registry, one: Marked) -> None:
    if one.version:
        first = found.workflows.setdefault((one.name, one.version), one.code)
    else:
        first = found.functions.setdefault(one.name, one.code)
    if first is not one.code:
        what = f"version {one.version} of {one.name}" if one.version else one.name
        raise WorkflowsUnusable(f"{_place(first)} and {_place(one.code)} are both {what}")


def _marked(package: str) -> Iterator[Marked]:
    seen: set[int] = set()
    for module in _modules(package):
        for value in vars(module).values():
            one = inspect.getattr_static(value, MARK, None)
            if isinstance(one, Marked) and id(one) not in seen:
                if value is not one.code:
                    mark = "@workflow" if one.version else "@function"
                    raise WorkflowsUnusable(
                        f"{_place(one.code)} has a decorator above {mark}, which would not run: put {mark} first"
                    )
                seen.add(id(one))
                yield one


def _modules(package: str) -> Iterator[ModuleType]:
    root = _imported(package)
    yield root
    for _, below, _ in pkgutil.walk_packages(getattr(root, "__path__", ()), f"{root.__name__}."):
        if not below.endswith(".__main__"):
            yield _imported(below)


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        account = account_of(error, name, ours=WorkflowsUnusable)
        raise WorkflowsUnusable(f"{name} cannot be imported: {account}") from error


def _place(code: Any) -> str:
    return f"{code.__module__}.{code.__qualname__}"
