"""What every verb of `intelliflow outbox` works with."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from events_worker.contracts import load_contracts
from events_worker.dead_letters import DeadLetters
from events_worker.store import DeadLetterStore
from worker_ops.outbox.store import OutboxView
from worker_ops.servers import opened_database, opened_redis
from worker_runtime.bullmq.producer import JobQueue

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable

    from worker_ops.exit_codes import ExitCode
    from worker_runtime.postgres import Database
    from worker_runtime.redis.connection import RedisConnection
    from worker_runtime.settings import WorkerSettings


@dataclass(frozen=True)
class Outbox:
    """The database with the outbox, and the queue its events go to."""

    settings: WorkerSettings
    database: Database
    redis: RedisConnection

    @property
    def view(self) -> OutboxView:
        """What can be read."""
        return OutboxView(self.database)

    @property
    def queue(self) -> JobQueue:
        """`intelliflow:events`."""
        return JobQueue(self.redis, self.settings.queue_name("EVENTS"))

    @property
    def dead_letters(self) -> DeadLetters:
        """What can be done about dead letters."""
        return DeadLetters(DeadLetterStore(self.database), self.queue, load_contracts())


@asynccontextmanager
async def opened(settings: WorkerSettings) -> AsyncIterator[Outbox]:
    """Connect to both servers; Redis may be away until something is asked of it."""
    async with opened_database(settings) as database, opened_redis(settings) as redis:
        yield Outbox(settings, database, redis)


def run_with_outbox(
    verb: Callable[[argparse.Namespace, Outbox], Awaitable[ExitCode]],
) -> Callable[[argparse.Namespace, WorkerSettings], ExitCode]:
    """Make a command of a verb."""

    async def run(asked: argparse.Namespace, settings: WorkerSettings) -> ExitCode:
        async with opened(settings) as outbox:
            return await verb(asked, outbox)

    return lambda asked, settings: asyncio.run(run(asked, settings))
