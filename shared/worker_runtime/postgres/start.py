"""What a worker that needs PostgreSQL does before it begins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from worker_runtime.postgres.database import Database, DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from worker_runtime.runtime import Runtime

log = structlog.get_logger()

PAUSE_SECONDS = 0.5


async def require_postgres(runtime: Runtime[Any], database: Database) -> None:
    """Make readiness depend on the server, and wait until it answers and has a current schema.

    Raises `SchemaOutdated`; the start's own time limit ends the wait.
    """
    runtime.require("postgres", database.ping, where=database.where)
    await runtime.wait_for("postgres")
    await until_answered(database.refuse_old_schema)


async def until_answered(ask: Callable[[], Awaitable[None]]) -> None:
    """Ask PostgreSQL again and again, though it went away after it had answered; the start's own time limit ends it."""
    while True:
        try:
            return await ask()
        except DatabaseUnavailable as outage:
            log.info("start_waits_for_postgres", error=str(outage))
            await asyncio.sleep(PAUSE_SECONDS)
