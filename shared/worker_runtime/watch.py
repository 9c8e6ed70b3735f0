"""The worker watching itself: the event loop's beat, and once a second a new snapshot for the health board."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol

from worker_runtime.health_board import Snapshot, queue_report
from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_runtime.bullmq.producer import QueueCounts
    from worker_runtime.dependencies import Dependencies
    from worker_runtime.health_board import HealthBoard
    from worker_runtime.metrics import Metrics

LOOK_EVERY_SECONDS = 1.0
BEAT_EVERY_SECONDS = 0.1
COUNT_SECONDS = 0.5


class Uncountable(Exception):
    """A queue's server does not answer."""


class Labelled(Protocol):
    """A name for people."""

    @property
    def label(self) -> str:
        """What runbooks, metrics, logs and the command line write."""


class Countable(Protocol):
    """A queue, wherever it is."""

    @property
    def name(self) -> Labelled:
        """What it is called."""

    async def counts(self) -> QueueCounts:
        """Return how many jobs are where; raises `Uncountable`, or what Redis' connection raises."""


class Watch:
    """Runs beside the worker's loops from before the first until after the last of them."""

    def __init__(self, board: HealthBoard, dependencies: Dependencies, metrics: Metrics) -> None:
        self._board = board
        self._dependencies = dependencies
        self._metrics = metrics
        self._queues: list[Countable] = []
        self._disabled: set[str] = set()

    def count(self, queue: Countable) -> None:
        """Show this queue's counts."""
        self._queues.append(queue)

    def disable(self, queue: Countable) -> None:
        """Show this queue as one that nobody works here, on purpose."""
        self._disabled.add(queue.name.label)

    async def beat(self) -> None:
        """Show that the event loop turns, and how late."""
        while True:
            due = time.monotonic() + BEAT_EVERY_SECONDS
            await asyncio.sleep(BEAT_EVERY_SECONDS)
            self._board.event_loop.beat()
            self._metrics.event_loop_lag.set(max(0.0, time.monotonic() - due))

    async def look(self) -> None:
        """Replace the snapshot, again and again."""
        while True:
            began = time.monotonic()
            dependencies, *queues = await asyncio.gather(self._dependencies.look(), *map(self._counted, self._queues))
            self._board.snapshot = Snapshot(dependencies, dict(queues))
            await asyncio.sleep(max(0.0, LOOK_EVERY_SECONDS - (time.monotonic() - began)))

    async def _counted(self, queue: Countable) -> tuple[str, Mapping[str, Any]]:
        label = queue.name.label
        try:
            async with asyncio.timeout(COUNT_SECONDS):
                counts = await queue.counts()
        except (RedisUnavailable, RedisError, Uncountable, TimeoutError) as error:
            known = self._board.snapshot.queues.get(label, {})
            return label, {**known, "error": f"{type(error).__name__}: {error}".rstrip(": ")}
        self._metrics.queue_counted(label, counts)
        report = queue_report(counts)
        return label, {**report, "disabled": True} if label in self._disabled else report
