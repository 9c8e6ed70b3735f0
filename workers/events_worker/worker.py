"""The events-worker: from the outbox to the queue, and from the queue to the handlers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from events_worker.contracts import load_contracts
from events_worker.dispatcher import Dispatcher
from events_worker.event import EventJob
from events_worker.handlers import handlers
from events_worker.relay import Relay
from events_worker.settings import EventsSettings
from events_worker.store import OutboxStore
from events_worker.upkeep import Upkeep
from worker_runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker_runtime.loops import Loop
    from worker_runtime.runtime import Runtime

__all__ = ["EventsWorker"]


class EventsWorker(Worker[EventsSettings]):
    """Publishes committed events and routes them to what must happen because of them."""

    name: ClassVar[str] = "events-worker"
    settings_type = EventsSettings
    queue_keys: ClassVar[tuple[str, ...]] = ("EVENTS",)

    @asynccontextmanager
    async def on_start(self, runtime: Runtime[EventsSettings]) -> AsyncIterator[Sequence[Loop]]:
        """Read contracts and rules, wait for a database with a current schema, yield the loops."""
        dispatcher = Dispatcher(load_contracts(), handlers(runtime.settings.rules(), runtime.queue))
        async with _store(runtime) as pinged, _store(runtime) as relayed, _store(runtime) as kept:
            runtime.require("postgres", pinged.ping, where=_where(runtime.settings))
            await runtime.wait_for("postgres")
            await relayed.refuse_old_schema()
            yield [
                _relay(runtime, relayed),
                Upkeep(kept, runtime.metrics.outbox),
                runtime.consumer("EVENTS", EventJob, dispatcher.handle),
            ]


@asynccontextmanager
async def _store(runtime: Runtime[EventsSettings]) -> AsyncIterator[OutboxStore]:
    store = OutboxStore(runtime.settings.database_url.get_secret_value())
    try:
        yield store
    finally:
        await store.close()


def _relay(runtime: Runtime[EventsSettings], store: OutboxStore) -> Relay:
    settings = runtime.settings
    return Relay(
        store,
        runtime.queue("EVENTS"),
        runtime.metrics.outbox,
        batch_size=settings.outbox_batch_size,
        poll_seconds=settings.outbox_poll_interval_ms / 1000,
        max_job_bytes=settings.queue_max_payload_bytes,
    )


def _where(settings: EventsSettings) -> str:
    parts = urlsplit(settings.database_url.get_secret_value())
    return f"{parts.hostname}:{parts.port or 5432}"
