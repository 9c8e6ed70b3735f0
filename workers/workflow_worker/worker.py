"""The workflow-worker: durable executions on PostgreSQL."""

from __future__ import annotations

import asyncio
import functools
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from worker_runtime.egress import egress
from worker_runtime.postgres import BY_INDEX, Database, Listener, require_postgres
from worker_runtime.postgres.start import until_answered
from worker_runtime.worker import Worker
from workflow_worker.execution import ATTEMPTS
from workflow_worker.executions import Executions
from workflow_worker.leases import Leases
from workflow_worker.ledger import Ledger
from workflow_worker.presence import Presence
from workflow_worker.programs import Programs
from workflow_worker.queue import LABEL, WorkflowQueue
from workflow_worker.settings import WorkflowSettings
from workflow_worker.steps import STEPS
from workflow_worker.steps.http_reply import MOST_BODY_BYTES
from workflow_worker.steps.step import Services
from workflow_worker.store.children import ChildStore
from workflow_worker.store.claims import CLAIMING, ClaimStore
from workflow_worker.store.cron import CronStore
from workflow_worker.store.definitions import DefinitionStore
from workflow_worker.store.leases import LeaseStore
from workflow_worker.store.ledger import HOLD_AT_MOST, LedgerStore
from workflow_worker.store.presence import PresenceStore
from workflow_worker.store.upkeep import UpkeepStore
from workflow_worker.ticker import Ticker
from workflow_worker.turn import Turn
from workflow_worker.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker_runtime.loops import Loop
    from worker_runtime.runtime import Runtime

__all__ = ["WorkflowWorker"]

# `NOTIFY workflow_executions`, after a commit or by the tick, saves the wait for the next poll.
HINTS = "workflow_executions"
# Counting and sweeping a large backlog takes longer than a claim may.
UPKEEP_SECONDS = 30.0


class WorkflowWorker(Worker[WorkflowSettings]):
    """Runs the executions of every organisation that has its worker enabled."""

    name: ClassVar[str] = "workflow-worker"
    settings_type = WorkflowSettings

    @asynccontextmanager
    async def on_start(self, runtime: Runtime[WorkflowSettings]) -> AsyncIterator[Sequence[Loop]]:
        """Wait for a database with a current schema, open what is needed, yield the loops."""
        settings, hinted = runtime.settings, asyncio.Event()
        async with AsyncExitStack() as opened:
            url = settings.database_url.get_secret_value()
            connection = functools.partial(Database, url, application=self.name)
            await require_postgres(runtime, await opened.enter_async_context(connection()))
            listener = Listener(HINTS, hinted.set)
            databases = _Databases(
                claims=await opened.enter_async_context(connection(settings=CLAIMING, listener=listener)),
                ledger=await opened.enter_async_context(connection(settings={**BY_INDEX, **HOLD_AT_MOST})),
                leases=await opened.enter_async_context(connection(settings=BY_INDEX)),
                reads=await opened.enter_async_context(connection(settings=BY_INDEX)),
                upkeep=await opened.enter_async_context(connection(command_seconds=UPKEEP_SECONDS)),
            )
            runtime.metrics.workflows.announce(["step", *(name for name, kind in STEPS.items() if kind.is_tried)])
            registry, definitions = settings.registry(), DefinitionStore(databases.reads)
            await until_answered(functools.partial(definitions.announce, registry.workflows))
            http = await opened.enter_async_context(egress(settings, kept_bytes=MOST_BODY_BYTES))
            services = Services(runtime.queue, http, registry.functions, settings.channels_off())
            programs = Programs(definitions, registry, services)
            presence = Presence(PresenceStore(databases.upkeep))
            # Whoever looks after a stop sees that nobody is at work.
            opened.push_async_callback(presence.write)
            schedule = CronStore(url, instance_of(runtime))
            opened.push_async_callback(schedule.close)
            yield [
                *_running(runtime, databases, programs, presence, hinted),
                presence,
                _upkeep(runtime, databases),
                Ticker(schedule, runtime.metrics.workflows),
            ]


@dataclass(frozen=True)
class _Databases:
    """A connection for each kind of work, so that none waits for another's disk."""

    claims: Database
    ledger: Database
    leases: Database
    reads: Database
    upkeep: Database


def _running(
    runtime: Runtime[WorkflowSettings],
    databases: _Databases,
    programs: Programs,
    presence: Presence,
    hinted: asyncio.Event,
) -> Sequence[Loop]:
    settings, instance = runtime.settings, instance_of(runtime)
    leases = Leases(LeaseStore(databases.leases))
    turn_of = functools.partial(
        Turn,
        leases=leases,
        ledger=Ledger(LedgerStore(databases.ledger, instance)),
        programs=programs,
        children=ChildStore(databases.reads),
        metrics=runtime.metrics.workflows,
        random=runtime.random,
    )
    executions = Executions(
        ClaimStore(databases.claims, instance),
        leases,
        presence,
        turn_of,
        runtime.metrics.for_queue(LABEL, concurrency=settings.queue_concurrency, attempts=ATTEMPTS),
        slots=settings.queue_concurrency,
        poll_seconds=settings.workflow_poll_interval_ms / 1000,
        hinted=hinted,
    )
    runtime.also_in_flight(executions.in_flight)
    runtime.health.show("workflows", presence.last_run)
    return [leases, executions]


def instance_of(runtime: Runtime[WorkflowSettings]) -> str:
    """Name this process: another on the same host and with the same number has another token."""
    return f"{runtime.health.identity.instance}:{runtime.token[:8]}"


def _upkeep(runtime: Runtime[WorkflowSettings], databases: _Databases) -> Loop:
    store, settings = UpkeepStore(databases.upkeep), runtime.settings
    runtime.watch.count(WorkflowQueue(store))
    return Upkeep(
        store,
        runtime.metrics.workflows,
        days=settings.workflow_history_days,
        failed_days=settings.workflow_failed_history_days,
    )
