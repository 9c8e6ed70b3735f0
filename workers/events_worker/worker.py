"""The events-worker: from the outbox to the queue, and from the queue to the handlers."""

from __future__ import annotations

import asyncio
import functools
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import structlog

from events_worker.admin import DeadLetterDoors
from events_worker.context import HandlerContexts
from events_worker.contracts import load_contracts
from events_worker.dead_letters import DeadLetters
from events_worker.deferrals import Deferrals
from events_worker.dispatcher import LONGEST_TURN_SECONDS, Dispatcher
from events_worker.drains import Drains
from events_worker.endpoints import RememberedEndpoints
from events_worker.event import EventJob
from events_worker.handlers import handlers
from events_worker.headroom import Headroom
from events_worker.partitions import LEASE_SECONDS, Partitions
from events_worker.publisher import Publisher
from events_worker.reconciler import Reconciler
from events_worker.relay import Relay
from events_worker.settings import EventsSettings
from events_worker.store import (
    DeadLetterStore,
    DeferralStore,
    EndpointStore,
    OutboxStore,
    PartitionStore,
    Transactions,
    TurnStore,
    UpkeepStore,
    WakeUpStore,
    WorkflowStore,
)
from events_worker.turns import Turns
from events_worker.upkeep import Upkeep
from events_worker.wake_up import WakeUp
from events_worker.workflows import Workflows
from worker_runtime.postgres import BY_INDEX, Database, Listener, require_postgres
from worker_runtime.postgres.start import until_answered
from worker_runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker_runtime.loops import Loop
    from worker_runtime.runtime import Runtime

__all__ = ["EventsWorker"]

log = structlog.get_logger()

# `NOTIFY domain_event_outbox`, after a commit, saves the wait for the next poll.
HINTS = "domain_event_outbox"
# One for questions, one for starts, which go together, and two for what cannot. None is opened before it is needed.
WORKFLOW_CONNECTIONS = 4
# A person who asks for the dead letters may wait until the health server gives up.
PERSON_SECONDS = 25.0
# A claim that a crash of the server takes back is made again, and publishes the same job; every receipt that is written
# later makes it durable too. So the relay need not wait for the disk.
CLAIMS = {**BY_INDEX, "synchronous_commit": "off"}
# A hint need not wait for the disk either.
HURRIED = {"synchronous_commit": "off"}


class EventsWorker(Worker[EventsSettings]):
    """Publishes committed events and routes them to what must happen because of them."""

    name: ClassVar[str] = "events-worker"
    settings_type = EventsSettings
    queue_keys: ClassVar[tuple[str, ...]] = ("EVENTS",)

    @asynccontextmanager
    async def on_start(self, runtime: Runtime[EventsSettings]) -> AsyncIterator[Sequence[Loop]]:
        """Wait for a database with a current schema, open what is needed, yield the loops."""
        url, hinted = runtime.settings.database_url.get_secret_value(), asyncio.Event()
        async with AsyncExitStack() as opened:
            connection = functools.partial(Database, url, application=self.name)
            pinged = await opened.enter_async_context(connection())
            await require_postgres(runtime, pinged)
            listener = Listener(HINTS, hinted.set)
            databases = _Databases(
                claims=await opened.enter_async_context(connection(settings=CLAIMS, listener=listener)),
                looks=await opened.enter_async_context(connection(settings=BY_INDEX)),
                ends=await opened.enter_async_context(connection(settings=BY_INDEX)),
                upkeep=await opened.enter_async_context(connection(settings=BY_INDEX)),
                endpoints=await opened.enter_async_context(connection(settings=BY_INDEX)),
                people=await opened.enter_async_context(connection(settings=BY_INDEX, command_seconds=PERSON_SECONDS)),
                handlers=await opened.enter_async_context(Transactions(url, runtime.settings.queue_concurrency)),
                workflows=await opened.enter_async_context(
                    Transactions(url, WORKFLOW_CONNECTIONS, f"{self.name} workflows")
                ),
                wake_ups=await opened.enter_async_context(connection(settings=HURRIED)),
                jobs=await _jobs_database(opened, runtime.settings),
            )
            dead_letters = DeadLetters(DeadLetterStore(databases.people), runtime.queue("EVENTS"), load_contracts())
            drains = Drains(dead_letters)
            opened.enter_context(runtime.doors.opened(DeadLetterDoors(dead_letters, drains).actions))
            yield [*await _loops(runtime, databases, hinted), drains]


@dataclass(frozen=True)
class _Databases:
    """A connection for each kind of work, so that none waits for another's disk."""

    claims: Database
    looks: Database
    ends: Database
    upkeep: Database
    endpoints: Database
    people: Database
    handlers: Transactions
    workflows: Transactions
    wake_ups: Database
    jobs: Database | None


async def _jobs_database(opened: AsyncExitStack, settings: EventsSettings) -> Database | None:
    """Return the database of the side effects; connected to when a rule needs it, for it may be away."""
    if (url := settings.job_queue_database_url) is None:
        return None
    return await opened.enter_async_context(Database(url.get_secret_value(), application="events-worker jobs"))


async def _loops(runtime: Runtime[EventsSettings], databases: _Databases, hinted: asyncio.Event) -> Sequence[Loop]:
    settings, metrics, queue = runtime.settings, runtime.metrics.outbox, runtime.queue("EVENTS")
    most_bytes, contracts = settings.queue_max_payload_bytes, load_contracts()
    turn_store = TurnStore(databases.looks, databases.ends, most_bytes)
    publisher = Publisher(queue, turn_store, metrics, max_job_bytes=most_bytes, blocks=contracts.blocks)
    partitions = await _partitions(runtime, databases.upkeep, hinted)
    relay = Relay(
        OutboxStore(databases.claims, settings.outbox_partitions, most_bytes),
        publisher,
        partitions,
        Headroom(queue, settings.outbox_max_waiting_jobs, metrics),
        metrics,
        batch_size=settings.outbox_batch_size,
        poll_seconds=settings.outbox_poll_interval_ms / 1000,
        hinted=hinted,
    )
    background = OutboxStore(databases.upkeep, settings.outbox_partitions, most_bytes)
    endpoints = RememberedEndpoints(EndpointStore(databases.endpoints))
    wake_up = WakeUp(WakeUpStore(databases.wake_ups))
    workflows = Workflows(WorkflowStore(databases.workflows), runtime.metrics.workflow_starts, wake_up.hint)
    deferrals = Deferrals(DeferralStore(databases.jobs) if databases.jobs else None)
    runtime.log.info("event_handlers", handlers={one.name: one.pattern for one in settings.handlers()})
    dispatcher = Dispatcher(
        contracts,
        handlers(settings.rules(), runtime.queue, endpoints, workflows, deferrals, settings.handler_packages()),
        Turns(turn_store, publisher),
        HandlerContexts(runtime.queue, databases.handlers),
    )
    return [
        partitions,
        relay,
        Reconciler(background, queue, publisher, partitions, metrics),
        wake_up,
        Upkeep(UpkeepStore(databases.upkeep), metrics, purge_days=settings.outbox_archive_purge_days),
        runtime.consumer(
            "EVENTS", EventJob, dispatcher.handle, on_dead=dispatcher.bury, time_limit_seconds=LONGEST_TURN_SECONDS
        ),
    ]


async def _partitions(runtime: Runtime[EventsSettings], database: Database, hinted: asyncio.Event) -> Partitions:
    # Another process on the same host and with the same number has another token.
    instance = f"{runtime.health.identity.instance}:{runtime.token[:8]}"
    store = PartitionStore(database, instance, LEASE_SECONDS)
    await until_answered(lambda: store.record(runtime.settings.outbox_partitions))
    return Partitions(store, runtime.metrics.outbox, hinted=hinted)
