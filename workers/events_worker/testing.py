"""For the author of a handler: run it as the events-worker would, on a real PostgreSQL and a real Redis.

    async with handling(count_lead, database_url=..., redis_url=...) as work:
        ended = await work.ended(await work.commit("lead.created", {"leadId": "l-1", ...}))
    assert (ended.state, ended.returnvalue) == ("completed", {"count_lead": {"leads": 1}})

The database has the current schema (`intelliflow migrate`). From the commit on all is the worker's own: contract,
order, receipts, retries, time limit. Only the relay has no part, so that other events of the database are left alone.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from prometheus_client import CollectorRegistry

from events_worker.context import HandlerContexts
from events_worker.contracts import load_contracts
from events_worker.dispatcher import Dispatcher
from events_worker.event import EventJob
from events_worker.handlers.marked import MARK, HandlersUnusable, PythonHandler, place_of
from events_worker.publisher import Publisher
from events_worker.store import Transactions, TrialStore, TurnStore
from events_worker.turns import Turns
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue
from worker_runtime.metrics import OutboxMetrics
from worker_runtime.outcome import Defer, Done, Outcome
from worker_runtime.postgres import Database
from worker_runtime.redis.connection import RedisConnection
from worker_runtime.settings.queues import QUEUES
from worker_runtime.testing import AT_ONCE, AddedJob, Ended, HandlerQueue, jobs_waiting_in, remove_keys, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from events_worker.context import HandlerContext
    from events_worker.handlers import EventHandler
    from worker_runtime.retry import RetryPolicy

__all__ = ["AddedJob", "Ended", "HandledEvents", "handling"]

MAX_JOB_BYTES = 2_097_152
MOST_AT_WORK = 10
LOOK_SECONDS = 0.005
# Soon, but behind whatever waits already.
AGAIN_SECONDS = 0.001


class HandledEvents:
    """What `handling` yields. Raises `DatabaseUnavailable` and `RedisUnavailable` when a server is gone."""

    def __init__(self, queue: HandlerQueue, queues: PrivateQueues, store: TrialStore, publisher: Publisher) -> None:
        self._queue = queue
        self._queues = queues
        self._store = store
        self._publisher = publisher

    async def commit(
        self,
        event_type: str,
        payload: Mapping[str, Any],
        *,
        aggregate_type: str = "Lead",
        aggregate_id: str = "",
        tenant_id: str = "tenant-1",
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Commit an event and return its id. Its aggregate is one of its own unless `aggregate_id` names one."""
        event_id = str(uuid4())
        texts = (json.dumps(payload), json.dumps(metadata or {}))
        columns = (event_id, event_type, aggregate_type, aggregate_id or event_id, tenant_id, *texts)
        await self._publisher.publish(await self._store.commit(*columns))
        return event_id

    async def ended(self, event_id: str, within: float = 10.0) -> Ended:
        """Wait until the event is handled or dead: see `HandlerQueue.ended`. Its result is each handler's by name."""
        try:
            async with asyncio.timeout(within):
                # The worker publishes it when the event before it is handled; nobody tells us.
                while not await self._queue.holds(event_id):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"the turn of event {event_id} has not come within {within:g} s") from error
        return await self._queue.ended(event_id, within)

    async def added(self, queue: str | QueueName) -> list[AddedJob]:
        """Return the jobs that handlers added to a queue and that wait there, in the order in which they will run."""
        return await self._queues.waiting(queue)


@asynccontextmanager
async def handling(
    *functions: Callable[..., Any],
    database_url: str,
    redis_url: str,
    retry: RetryPolicy = AT_ONCE,
    killed_once: bool = False,
) -> AsyncIterator[HandledEvents]:
    """Handle the events that the block commits with `functions`, each marked with `@on`.

    `killed_once` shows what a kill of the worker does at the worst moment: every handler has done its work, nobody has
    noted it, and the event is handled again. What was written in `context.transaction()` is there once all the same.
    Jobs that handlers add stay in queues of the block's own. `retry` is as for `worker_runtime.testing.running`.
    """
    handlers = [_handler(function, killed_once=killed_once) for function in functions]
    async with AsyncExitStack() as opened:
        # One connection for all: what happens to an aggregate then happens one after the other.
        database = await opened.enter_async_context(Database(database_url))
        transactions = await opened.enter_async_context(Transactions(database_url, MOST_AT_WORK))
        queues = await opened.enter_async_context(private_queues(redis_url))
        store, turns = TrialStore(database, MAX_JOB_BYTES), TurnStore(database, database, MAX_JOB_BYTES)
        opened.push_async_callback(store.remove)
        contracts, events, metrics = load_contracts(), queues.of("EVENTS"), OutboxMetrics(CollectorRegistry())
        publisher = Publisher(events, turns, metrics, max_job_bytes=MAX_JOB_BYTES, blocks=contracts.blocks)
        contexts = HandlerContexts(queues.of, transactions)
        dispatcher = Dispatcher(contracts, handlers, Turns(turns, publisher), contexts)
        consumer = running(
            dispatcher.handle,
            payload=EventJob,
            redis_url=redis_url,
            retry=retry,
            concurrency=MOST_AT_WORK,
            name=events.name,
            on_dead=dispatcher.bury,
        )
        yield HandledEvents(await opened.enter_async_context(consumer), queues, store, publisher)


class PrivateQueues:
    """The product's queues and a team's, under a prefix that no worker works."""

    def __init__(self, redis: RedisConnection, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix

    def of(self, queue: str | QueueName) -> JobQueue:
        """Return the queue that stands for another; raises `KeyError` for a key that is none."""
        return JobQueue(self._redis, self._name(queue))

    async def waiting(self, queue: str | QueueName) -> list[AddedJob]:
        """Return the jobs of a queue."""
        return await jobs_waiting_in(self._redis, self._name(queue))

    def _name(self, queue: str | QueueName) -> QueueName:
        if isinstance(queue, QueueName):
            return QueueName(f"{self._prefix}:{queue.prefix}", queue.name)
        return QueueName(self._prefix, QUEUES[queue].name)


@asynccontextmanager
async def private_queues(redis_url: str) -> AsyncIterator[PrivateQueues]:
    """Open queues of the block's own, and remove them at its end."""
    prefix = f"testing-{uuid4().hex}"
    redis = RedisConnection(redis_url, client_name="handler-test-queues")
    await redis.open()
    try:
        yield PrivateQueues(redis, prefix)
        await remove_keys(redis, f"{prefix}:*")
    finally:
        await redis.close()


def _handler(function: Callable[..., Any], *, killed_once: bool) -> EventHandler:
    handler = getattr(function, MARK, None)
    if not isinstance(handler, PythonHandler):
        raise HandlersUnusable(f"{place_of(function)} is not marked with @on")
    return KilledOnce(handler) if killed_once else handler


class KilledOnce:
    """A handler whose worker is killed after its work, the first time for each event."""

    def __init__(self, handler: PythonHandler) -> None:
        self.name = handler.name
        self.pattern = handler.pattern
        self.timeout_seconds = handler.timeout_seconds
        self._handler = handler
        self._killed: set[str] = set()

    async def handle(self, event: EventJob, context: HandlerContext) -> Outcome:
        """See `EventHandler`."""
        outcome = await self._handler.handle(event, context)
        if not isinstance(outcome, Done) or event.event_id in self._killed:
            return outcome
        self._killed.add(event.event_id)
        return Defer("KILLED", "the worker was killed before it could note that this was done", AGAIN_SECONDS)
