"""Whose turn it is: what the events-worker must know before it runs an event's handlers, and say after."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from events_worker.store import End, Standing, Turn
from worker_runtime.batching import Batcher
from worker_runtime.postgres import DatabaseUnavailable, storable
from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from events_worker.publisher import Publisher
    from events_worker.store import TurnStore

log = structlog.get_logger()

# Enough for one commit to serve every job in flight, few enough for a statement of milliseconds.
MOST_TOGETHER = 100
EVENT_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NOT_OURS = Turn(Standing.UNKNOWN, frozenset())


class Turns:
    """Every method may raise `DatabaseUnavailable`; asked again, each does no more than it did."""

    def __init__(self, store: TurnStore, publisher: Publisher) -> None:
        self._store = store
        self._publisher = publisher
        self._look: Batcher[UUID, Turn] = Batcher(store.look, MOST_TOGETHER)
        self._end: Batcher[End, bool] = Batcher(self._end_together, MOST_TOGETHER)

    async def begin(self, event_id: str) -> Turn:
        """Return what is known of an event; one that never was in the outbox is unknown, and runs without receipts."""
        return await self._look(UUID(event_id)) if is_event_id(event_id) else NOT_OURS

    async def note_finished(self, event_id: str, handlers: Sequence[str]) -> None:
        """Keep receipts of handlers that are done with an event that is not."""
        await self._store.note_finished(event_id, handlers)

    async def finish(self, event_id: str) -> None:
        """Say that all handlers are done. The next event of its aggregate is on the queue when this returns."""
        await self._ended(End(event_id))

    async def bury(self, event_id: str, reason: str, *, blocks: bool, attempt: int = 0) -> None:
        """Say that nobody will try the event again by himself; unless it `blocks`, its aggregate goes on.

        A job that comes back with the same `attempt` is dead as it was, and not tried again.
        """
        if is_event_id(event_id):
            await self._ended(End(event_id, storable(reason), blocks, attempt))

    async def _ended(self, end: End) -> None:
        if not await self._end(end):
            raise DatabaseUnavailable("another transaction holds the event's turn")

    async def _end_together(self, ends: Sequence[End]) -> Sequence[bool]:
        ended = await self._store.end(ends, claim_next=True)
        if ended.following:
            try:
                await self._publisher.publish(ended.following)
            except (RedisUnavailable, RedisError) as outage:
                # The ends are written. What follows them is kept, and published by the relay.
                log.warning("next_events_wait_for_redis", events=len(ended.following), error=str(outage))
        return [end.event_id not in ended.locked for end in ends]


def is_event_id(text: str) -> bool:
    """Tell whether an id can be one of the outbox's: a UUID as PostgreSQL writes it."""
    return bool(EVENT_ID.fullmatch(text))
