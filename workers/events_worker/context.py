"""What a handler is handed beside the event: an idempotency key, a log, the queues, exactly-once transactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, UUID, uuid5

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from events_worker.event import EventJob
    from events_worker.store import Transactions
    from worker_runtime.bullmq.producer import JobQueue, NewJob


@dataclass(frozen=True, slots=True)
class HandlerContext:
    """One handler and one event. The same event brings the same `idempotency_key`, however often it is tried.

    A replay is no try: it brings a key of its own.
    """

    event: EventJob
    handler: str
    log: Any
    _queue: Callable[[str], JobQueue]
    _transactions: Transactions
    _receipts: bool

    @property
    def idempotency_key(self) -> str:
        """A UUID to hand to receivers that can tell a repetition."""
        return self.id_of("")

    def id_of(self, part: str) -> str:
        """Return a UUID for one of several effects: the same part of the same event is always the same one."""
        return str(uuid5(_namespace(self.event.effects_id), f"{self.handler}/{part}" if part else self.handler))

    async def enqueue(self, queue: str, *jobs: NewJob) -> list[str]:
        """Add jobs to a queue by its key (`EMAIL`, `EVENTS`...). Give them ids by `id_of`: a retry adds them again."""
        return await self._queue(queue).add_bulk(jobs)

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """Lend an asyncpg connection to the outbox's database, in a transaction that notes that the handler is done.

        What is written there happens exactly once: with the commit, this handler is not run for this event again. It
        should therefore be the handler's last act, and may be entered once. Only an event that a producer added
        straight to the queue, or that is replayed, has no receipts, and may be handled twice.
        """
        if not self._receipts:
            return self._transactions.plain()
        return self._transactions.receipted(self.event.event_id, self.handler)


class HandlerContexts:
    """Makes them."""

    def __init__(self, queue: Callable[[str], JobQueue], transactions: Transactions) -> None:
        self._queue = queue
        self._transactions = transactions

    def of(self, event: EventJob, handler: str, *, receipts: bool) -> HandlerContext:
        """Return what that handler needs for that event, of which receipts are kept or not."""
        log = structlog.get_logger().bind(handler=handler, eventId=event.event_id, eventType=event.event_type)
        return HandlerContext(event, handler, log, self._queue, self._transactions, receipts)


def _namespace(event_id: str) -> UUID:
    try:
        return UUID(event_id)
    except ValueError:
        return uuid5(NAMESPACE_URL, event_id)
