"""What a handler is handed beside the event: an idempotency key, a log, the queues, exactly-once transactions."""

from __future__ import annotations

import hashlib
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid5

import structlog

from events_worker.event import namespace_of
from worker_runtime.outcome import PermanentError
from worker_runtime.telemetry import inject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from events_worker.event import EventJob
    from events_worker.store import Transactions
    from worker_runtime.bullmq.names import QueueName
    from worker_runtime.bullmq.producer import JobQueue, NewJob


@dataclass(slots=True)
class HandlerContext:
    """One handler and one event. The same event brings the same `idempotency_key`, however often it is tried.

    A replay is no try: it brings a key of its own.
    """

    event: EventJob
    handler: str
    log: Any
    _queue: Callable[[str | QueueName], JobQueue]
    _transactions: Transactions
    _receipts: bool
    _entered: bool = field(default=False, init=False)

    @property
    def idempotency_key(self) -> str:
        """A UUID to hand to receivers that can tell a repetition."""
        return self.id_of("")

    def id_of(self, part: str) -> str:
        """Return a UUID for one of several effects: the same part of the same event is always the same one."""
        return str(uuid5(namespace_of(self.event.effects_id), f"{self.handler}/{part}" if part else self.handler))

    async def enqueue(self, queue: str | QueueName, *jobs: NewJob) -> list[str]:
        """Add jobs to a queue of the product by its key (`EMAIL`), or to another by its prefix and name.

        A job without an id gets one by this event and what it says, so that a retry does not add it again. Returns the
        ids. Raises `PermanentError` for a key that no queue has.
        """
        try:
            target = self._queue(queue)
        except KeyError as error:
            sentence = f"{queue} is no queue's key (EMAIL is one); name one of your own as QueueName(prefix, name)"
            raise PermanentError("UNKNOWN_QUEUE", sentence) from error
        return await target.add_bulk([self._prepared(job, target.name) for job in jobs])

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """Lend an asyncpg connection to the outbox's database, in a transaction that notes that the handler is done.

        What is written there happens exactly once: with the commit, this handler is not run for this event again. It
        should therefore be the handler's last act. Raises `PermanentError` when it is entered a second time, unless
        the first was rolled back. Only an event that a producer added straight to the queue, or that is replayed, has
        no receipts, and may be handled twice.
        """
        if self._entered:
            sentence = f"handler {self.handler} enters context.transaction() twice: write everything in one"
            raise PermanentError("TRANSACTION_TWICE", sentence)
        self._entered = True
        try:
            async with self._connection() as connection:
                yield connection
        except BaseException:
            self._entered = False
            raise

    def _connection(self) -> AbstractAsyncContextManager[Any]:
        if not self._receipts:
            return self._transactions.plain()
        return self._transactions.receipted(self.event.event_id, self.handler)

    def _prepared(self, job: NewJob, queue: QueueName) -> NewJob:
        """Give a job what it was not given: an id, and the trace that it is part of."""
        job_id = self.id_of(f"{queue.label}/{digest_of(job)}") if job.job_id is None else job.job_id
        carrier = inject()
        trace = {"tm": carrier} if carrier else {}
        return replace(job, job_id=job_id, options={**trace, **job.options})


class HandlerContexts:
    """Makes them."""

    def __init__(self, queue: Callable[[str | QueueName], JobQueue], transactions: Transactions) -> None:
        self._queue = queue
        self._transactions = transactions

    def of(self, event: EventJob, handler: str, *, receipts: bool) -> HandlerContext:
        """Return what that handler needs for that event, of which receipts are kept or not."""
        log = structlog.get_logger().bind(handler=handler, eventId=event.event_id, eventType=event.event_type)
        return HandlerContext(event, handler, log, self._queue, self._transactions, receipts)


def digest_of(job: NewJob) -> str:
    """Tell jobs that say the same from those that do not."""
    data = job.data if isinstance(job.data, bytes) else json.dumps(job.data, sort_keys=True).encode()
    return hashlib.sha256(job.name.encode() + b"\0" + data).hexdigest()
