"""What an execution runs: its organisation's definition in its version, or a workflow in Python in its."""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from worker_runtime.outcome import PermanentError
from worker_runtime.postgres import DatabaseUnavailable, UnreadableJson
from workflow_worker.context import PutOff
from workflow_worker.definition import Definition, DefinitionError, read_definition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from workflow_worker.context import WorkflowContext
    from workflow_worker.execution import Execution
    from workflow_worker.registry import Registry
    from workflow_worker.steps.step import Services
    from workflow_worker.store.definitions import DefinitionStore

    Program = Callable[[WorkflowContext], Awaitable[Any]]

__all__ = ["Programs"]

MOST_REMEMBERED = 1_000
OUTAGE_SECONDS = 1.0


class Programs:
    """Finds them. A version never changes, so what was read once is remembered, also that it is wrong."""

    def __init__(self, store: DefinitionStore, registry: Registry, services: Services) -> None:
        self._store = store
        self._registry = registry
        self._services = services
        self._remembered: OrderedDict[tuple[UUID, int], Definition | str] = OrderedDict()
        self._reading = asyncio.Lock()

    async def of(self, execution: Execution) -> Program | None:
        """Return what to run; `None` when it is in Python and not here.

        Raises `PermanentError` for a definition that is wrong, or an input that is not what it asks for, and `PutOff`.
        """
        if execution.rule_id is None:
            return self._in_python(execution.workflow or "", execution.workflow_version)
        definition = await self._definition(execution.rule_id, execution.rule_version or 0)
        if problem := definition.input_problem(execution.input):
            raise PermanentError("INVALID_INPUT", problem)
        if definition.workflow is not None:
            return self._in_python(definition.workflow, execution.workflow_version)
        return functools.partial(definition.run, services=self._services)

    def _in_python(self, name: str, version: int | None) -> Program | None:
        version = version or self._registry.newest(name)
        return None if version is None else self._registry.workflows.get((name, version))

    async def _definition(self, rule_id: UUID, version: int) -> Definition:
        key = (rule_id, version)
        if (definition := self._remembered.get(key)) is None:
            # A large one takes seconds: whoever wants the same meanwhile shall not do it again.
            async with self._reading:
                definition = self._remembered.get(key) or await self._read(rule_id, version)
                self._remembered[key] = definition
            if len(self._remembered) > MOST_REMEMBERED:
                self._remembered.popitem(last=False)
        if isinstance(definition, str):
            raise PermanentError("INVALID_DEFINITION", definition)
        return definition

    async def _read(self, rule_id: UUID, version: int) -> Definition | str:
        """Return the definition, or what is wrong with it."""
        try:
            document = await self._store.read(rule_id, version)
        except DatabaseUnavailable as outage:
            raise PutOff(f"PostgreSQL did not answer: {outage}", OUTAGE_SECONDS) from outage
        except UnreadableJson as error:
            return f"it {error}"
        if document is None:
            raise PermanentError("INVALID_DEFINITION", f"rule {rule_id} has no version {version}")
        try:
            # Half a thousand steps take a second to compile, during which leases must still be renewed.
            return await asyncio.to_thread(read_definition, document)
        except DefinitionError as error:
            return str(error)
