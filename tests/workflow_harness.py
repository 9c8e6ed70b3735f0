"""A workflow-worker without the process, on a real PostgreSQL: its loops, and what a test asks the tables."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, cast

import asyncpg
from prometheus_client import CollectorRegistry

from worker_runtime.loops import StopSignal
from worker_runtime.metrics import Metrics
from worker_runtime.postgres import BY_INDEX, Database, Listener
from worker_runtime.workflow_metrics import WorkflowMetrics
from workflow_worker.executions import Executions
from workflow_worker.leases import Leases
from workflow_worker.ledger import Ledger
from workflow_worker.presence import Presence
from workflow_worker.programs import Programs
from workflow_worker.registry import Registry
from workflow_worker.store.children import ChildStore
from workflow_worker.store.claims import CLAIMING, ClaimStore
from workflow_worker.store.definitions import DefinitionStore
from workflow_worker.store.leases import LeaseStore
from workflow_worker.store.ledger import HOLD_AT_MOST, LedgerStore
from workflow_worker.store.presence import PresenceStore
from workflow_worker.store.upkeep import UpkeepStore
from workflow_worker.turn import Turn
from workflow_worker.upkeep import Upkeep
from workflow_worker.worker import HINTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from worker_runtime.metrics import QueueMetrics
    from workflow_worker.steps.step import Services

SECONDS = 20.0
ORGANISATION = "acme"
ENABLE = """
INSERT INTO fw_module_settings (organization_id, fw_execution_worker_enabled) VALUES ($1, true)
    ON CONFLICT (organization_id) DO UPDATE SET fw_execution_worker_enabled = true
"""


@dataclass
class Desk:
    """The database as a test sees it. `rows` and `row` return records; JSON columns are text."""

    url: str

    async def rows(self, statement: str, *arguments: Any) -> list[Any]:
        async with self.connected() as connection:
            return list(await connection.fetch(statement, *arguments))

    async def row(self, statement: str, *arguments: Any) -> Any:
        return (await self.rows(statement, *arguments))[0]

    async def value(self, statement: str, *arguments: Any) -> Any:
        return (await self.row(statement, *arguments))[0]

    async def enable(self, *organisations: str) -> None:
        for organisation in organisations or (ORGANISATION,):
            await self.rows(ENABLE, organisation)

    async def start(
        self, workflow: str, given: Any = None, *, organisation: str = ORGANISATION, key: Any = None
    ) -> UUID:
        statement = "SELECT fw_workflow_start($1, $2, $3::jsonb, $4)"
        return cast("UUID", await self.value(statement, organisation, workflow, json.dumps(given or {}), key))

    async def signal(self, event: str, correlation: str, data: Any = None, organisation: str = ORGANISATION) -> int:
        statement = "SELECT fw_workflow_signal($1, $2, $3, $4::jsonb)"
        return cast("int", await self.value(statement, organisation, event, correlation, json.dumps(data)))

    async def execution(self, execution: UUID) -> Any:
        return await self.row("SELECT * FROM fw_workflow_executions WHERE id = $1", execution)

    async def steps(self, execution: UUID) -> list[Any]:
        statement = "SELECT * FROM fw_workflow_steps WHERE execution_id = $1 ORDER BY started_at, round, attempt"
        return await self.rows(statement, execution)

    async def until(self, execution: UUID, *statuses: str, seconds: float = SECONDS) -> Any:
        """Return the execution once it has one of these statuses."""
        row = None
        async with asyncio.timeout(seconds):
            while row is None or row["status"] not in statuses:
                # Nothing tells a stranger of a change in a table.
                await asyncio.sleep(0.02)
                row = await self.execution(execution)
        return row

    async def soon(self, statement: str, *arguments: Any, seconds: float = SECONDS) -> None:
        """Return once the statement says true."""
        async with asyncio.timeout(seconds):
            while not await self.value(statement, *arguments):  # noqa: ASYNC110  see above
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.url)
        try:
            yield connection
        finally:
            await connection.close()


@dataclass
class Engine:
    """The loops of one worker."""

    name: str
    executions: Executions
    leases: Leases
    presence: Presence
    upkeep: Upkeep
    ledger_store: LedgerStore
    claims: ClaimStore
    metrics: QueueMetrics
    stop: StopSignal = field(default_factory=StopSignal)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def run(self) -> None:
        """Run the loops but the upkeep, which a test calls."""
        loops = (self.leases, self.executions, self.presence)
        self.tasks = [asyncio.create_task(loop.run(self.stop)) for loop in loops]

    async def drain(self, grace_seconds: float = 5.0) -> None:
        self.stop.request(grace_seconds)
        await asyncio.gather(*self.tasks)
        self.tasks = []

    def claim_no_more(self) -> None:
        self.executions._slots = self.executions._most = 0

    async def freeze(self) -> None:
        """Be as good as a process that stands still: leases are not renewed, and nothing new is claimed."""
        self.claim_no_more()
        self.tasks[0].cancel()
        await asyncio.wait(self.tasks[:1])
        self.tasks = self.tasks[1:]

    async def vanish(self) -> None:
        """Stop as a killed process does: nothing is given back."""
        turns = list(self.executions._turns)
        for task in [*self.tasks, *turns]:
            task.cancel()
        await asyncio.gather(*self.tasks, *turns, return_exceptions=True)
        self.tasks = []


def registry_of(*marked: Any) -> Registry:
    """Return a registry of functions that are marked with `@workflow` or `@function`."""
    found = Registry()
    for code in marked:
        one = code.__workflow__
        if one.version:
            found.workflows[one.name, one.version] = code
        else:
            found.functions[one.name] = code
    return found


@asynccontextmanager
async def engine(
    url: str,
    *marked: Any,
    name: str = "worker-1",
    slots: int = 10,
    services: Services | None = None,
    poll_seconds: float = 0.05,
    run: bool = True,
) -> AsyncIterator[Engine]:
    """Open an engine with these workflows; it is running, and drained at the end unless it has vanished."""
    registry, metrics, hinted = registry_of(*marked), Metrics("workflow-worker"), asyncio.Event()
    async with AsyncExitStack() as opened:

        async def database(**settings: Any) -> Database:
            return await opened.enter_async_context(Database(url, **settings))

        claims = ClaimStore(await database(settings=CLAIMING, listener=Listener(HINTS, hinted.set)), name)
        ledger_store = LedgerStore(await database(settings={**BY_INDEX, **HOLD_AT_MOST}), name)
        leases = Leases(LeaseStore(await database(settings=BY_INDEX)), every_seconds=0.1)
        reads, background = await database(settings=BY_INDEX), await database()
        definitions = DefinitionStore(reads)
        await definitions.announce(registry.workflows)
        programs = Programs(definitions, registry, cast("Services", services))
        ledger, children = Ledger(ledger_store), ChildStore(reads)
        workflow_metrics = WorkflowMetrics(CollectorRegistry())
        presence = Presence(PresenceStore(background), every_seconds=0.1)
        queue_metrics = metrics.for_queue("workflow_execution_queue", concurrency=slots, attempts=5)

        def turn_of(held: Any) -> Turn:
            return Turn(held, leases, ledger, programs, children, workflow_metrics, Random(1))

        executions = Executions(
            claims, leases, presence, turn_of, queue_metrics, slots=slots, poll_seconds=poll_seconds, hinted=hinted
        )
        upkeep = Upkeep(UpkeepStore(background), workflow_metrics, days=30, failed_days=90)
        made = Engine(name, executions, leases, presence, upkeep, ledger_store, claims, queue_metrics)
        if run:
            made.run()
        try:
            yield made
        finally:
            if made.tasks:
                await made.drain(0.0)
