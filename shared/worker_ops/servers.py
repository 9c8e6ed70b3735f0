"""The servers a command talks to, opened for as long as it runs."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypeVar

from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_runtime.loops import StopSignal
from worker_runtime.postgres import BY_INDEX, Database
from worker_runtime.redis.cluster import redis_connection

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from worker_runtime.redis.connection import RedisConnection
    from worker_runtime.settings import WorkerSettings

T = TypeVar("T")
# A person waits for it.
REDIS_SECONDS = 3.0
# A count over millions of rows is worth waiting for.
STATEMENT_SECONDS = 120.0


@asynccontextmanager
async def opened_redis(settings: WorkerSettings) -> AsyncIterator[RedisConnection]:
    """Connect to Redis, or to nothing yet: the first command waits, and raises `RedisUnavailable`."""
    redis = redis_connection(settings.redis_address(), client_name="intelliflow", timeout_seconds=REDIS_SECONDS)
    await redis.open()
    try:
        yield redis
    finally:
        await redis.close()


@asynccontextmanager
async def opened_database(
    settings: WorkerSettings, statement_seconds: float = STATEMENT_SECONDS
) -> AsyncIterator[Database]:
    """Connect to a database with a current schema; raises `DatabaseUnavailable`, `SchemaOutdated`."""
    if settings.database_url is None:
        raise CommandFailed(ExitCode.FAILED, "DATABASE_URL is not set, so there is nothing to look at")
    own = {**BY_INDEX, "application_name": "intelliflow"}
    url = settings.database_url.get_secret_value()
    async with Database(url, settings=own, command_seconds=statement_seconds) as database:
        await database.refuse_old_schema()
        yield database


def command_over(
    store: Callable[[Database], T], verb: Callable[[argparse.Namespace, T], Awaitable[ExitCode]]
) -> Callable[[argparse.Namespace, WorkerSettings], ExitCode]:
    """Make a command of a verb that needs nothing but a store of the database."""

    async def run(asked: argparse.Namespace, settings: WorkerSettings) -> ExitCode:
        async with opened_database(settings) as database:
            return await verb(asked, store(database))

    return lambda asked, settings: asyncio.run(run(asked, settings))


@contextmanager
def interruptible() -> Iterator[StopSignal]:
    """Let Ctrl-C end a long command between two steps, so that it can say how far it got."""
    stop, loop = StopSignal(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.request, 0)
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGINT)
