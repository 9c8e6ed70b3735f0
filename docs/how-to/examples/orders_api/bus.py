from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

log = structlog.get_logger()
Handler = Callable[[Any], Awaitable[object]]
PUBLISH = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
VALUES (gen_random_uuid(), %s, %s, %s, %s, %s, '{}')
"""


class Bus:
    """Tells handlers what has happened, one after the other."""

    def __init__(self) -> None:
        self._handlers: dict[type, list[Handler]] = {}

    def on(self, kind: type) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            self._handlers.setdefault(kind, []).append(handler)
            return handler

        return register

    async def dispatch(self, event: object) -> None:
        for handler in self._handlers.get(type(event), []):
            try:
                await handler(event)
            except Exception:
                # The transaction is committed: the request has succeeded, whatever becomes of its side effects.
                log.exception("event_handler_failed", handler=handler.__name__, event_type=type(event).__name__)


class Work:
    """One transaction, and what happens in it."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.events: list[object] = []

    def happened(self, event: object) -> None:
        """Tell the bus after the commit. A process that dies in between tells nobody."""
        self.events.append(event)

    async def publish(self, event_type: str, aggregate: tuple[str, str], tenant_id: str, payload: Any) -> None:
        """Write the event with the transaction: the events-worker finds it, whatever becomes of this process."""
        await self.connection.execute(PUBLISH, (event_type, *aggregate, tenant_id, Jsonb(payload)))


@asynccontextmanager
async def unit_of_work(pool: AsyncConnectionPool, bus: Bus) -> AsyncIterator[Work]:
    async with pool.connection() as connection:
        work = Work(connection)
        yield work
    for event in work.events:
        await bus.dispatch(event)
