"""Puts events that are under way on the queue: each at least once and, by its id, as one job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from events_worker.outbox import sort_out
from events_worker.store import End
from worker_runtime.postgres import DatabaseUnavailable
from worker_runtime.redis.connection import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from events_worker.outbox import OutboxEvent, Unpublishable
    from events_worker.store import TurnStore
    from worker_runtime.bullmq.producer import JobQueue
    from worker_runtime.metrics import OutboxMetrics

log = structlog.get_logger()


class Publisher:
    """What cannot be published now is kept in memory, at most what was claimed, and goes first when Redis is back.

    Should the process end before, the reconciler of a living one finds it under way without a job.
    """

    def __init__(
        self,
        queue: JobQueue,
        turns: TurnStore,
        metrics: OutboxMetrics,
        *,
        max_job_bytes: int,
        blocks: Callable[[str], bool],
    ) -> None:
        self._queue = queue
        self._turns = turns
        self._metrics = metrics
        self._max_job_bytes = max_job_bytes
        self._blocks = blocks
        self._kept: dict[str, OutboxEvent] = {}

    @property
    def kept(self) -> int:
        """Events that wait here for Redis."""
        return len(self._kept)

    def refuse_in_an_outage(self) -> None:
        """Raise `RedisUnavailable` when it is known that nothing could be published now."""
        if self._queue.trouble:
            raise RedisUnavailable(self._queue.trouble)

    async def publish(self, events: Sequence[OutboxEvent]) -> None:
        """Publish events, those kept from earlier calls first; may be called by several tasks at once.

        Raises `RedisUnavailable`, `RedisError` or `DatabaseUnavailable`; whatever is not published then is kept.
        """
        waiting = [*self._kept.values(), *events]
        self._kept.clear()
        while waiting:
            try:
                waiting = await self._publish(waiting)
            except BaseException:
                self._kept |= {event.id: event for event in waiting}
                raise

    async def _publish(self, events: Sequence[OutboxEvent]) -> list[OutboxEvent]:
        """Publish events, and return those whose turn it is because of some that cannot be."""
        batch = sort_out(events, self._max_job_bytes)
        if again := [event.id for event in events if event.again]:
            # The queue would take an id that it has seen finished for a job that is done.
            await self._queue.remove_finished(again)
        await self._queue.add_bulk(batch.jobs)
        self._metrics.published.inc(len(batch.jobs))
        return await self._bury(events, batch.unpublishable) if batch.unpublishable else []

    async def _bury(self, events: Sequence[OutboxEvent], dead: Sequence[Unpublishable]) -> list[OutboxEvent]:
        types = {event.id: event.event_type for event in events}
        ends = [End(one.event_id, one.reason, self._blocks(types[one.event_id])) for one in dead]
        ended = await self._turns.end(ends, claim_next=True)
        if ended.locked:
            raise DatabaseUnavailable("somebody holds the row of an event that cannot be published")
        self._metrics.failed.inc(len(ends))
        for one in dead:
            log.error("outbox_event_dead_lettered", eventId=one.event_id, reason=one.reason)
        return ended.following
