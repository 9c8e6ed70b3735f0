"""Transactions that handlers share with their receipts: what they write there happens exactly once."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Self
from uuid import UUID

import asyncpg

from events_worker.store.turns import RECEIPT
from worker_runtime.postgres.database import (
    CONNECT_SECONDS,
    CONNECTION_FAULTS,
    DatabaseUnavailable,
    is_server_s_condition,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# A handler's statements may be anything; only its own time limit ends them.
ACQUIRE_SECONDS = 5.0
# How long a handler waits for another one's transaction for the same event: its neighbour's, or a zombie's.
LOCK_SECONDS = 5.0
# A process that is frozen within a handler's transaction holds up its aggregate for so long; no job takes longer.
IDLE_SECONDS = 60
SETTINGS = {"idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s"}

RECEIPTS = "SELECT finished FROM domain_event_under_way WHERE event_id = $1 FOR UPDATE"


class AlreadyReceipted(Exception):
    """The handler is done with this event: nothing may be written for it again."""


class TurnOver(Exception):
    """The event is not under way: handled by another process, or forgotten by a server that crashed."""


class TurnTaken(Exception):
    """Another transaction for the same event is open, for so long that its process may be frozen."""


class Transactions:
    """A pool of connections for handlers, none of which is opened before a handler asks."""

    def __init__(self, database_url: str, most: int, application: str = "events-worker handlers") -> None:
        self._pool = asyncpg.create_pool(
            database_url,
            min_size=0,
            max_size=most,
            timeout=CONNECT_SECONDS,
            server_settings={**SETTINGS, "application_name": application},
        )

    async def __aenter__(self) -> Self:
        await self._pool
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pool.terminate()

    @asynccontextmanager
    async def receipted(self, event_id: str, handler: str) -> AsyncIterator[asyncpg.Connection]:
        """Lend a transaction that commits together with the handler's receipt, or not at all.

        Raises `AlreadyReceipted` when it has committed before, `TurnOver`, `TurnTaken`, `DatabaseUnavailable` for what
        time may cure, and whatever the block raises.
        """
        async with self.plain() as connection:
            try:
                finished = await connection.fetchval(RECEIPTS, UUID(event_id), timeout=LOCK_SECONDS)
            except TimeoutError:
                raise TurnTaken(event_id) from None
            if finished is None:
                raise TurnOver(event_id)
            if handler in finished:
                raise AlreadyReceipted(handler)
            await connection.execute(RECEIPT, UUID(event_id), [handler])
            yield connection

    @asynccontextmanager
    async def plain(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a transaction without a receipt: for an event that never was in the outbox, or what may be repeated."""
        try:
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                # Around the commit, too: a constraint may be checked only there.
                with _as_its_own(connection):
                    async with connection.transaction():
                        yield connection
        except _HandlerFailed as failure:
            raise failure.error from failure.error.__cause__
        except (asyncpg.PostgresError, *CONNECTION_FAULTS) as error:
            raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error


class _HandlerFailed(Exception):
    def __init__(self, error: Exception) -> None:
        self.error = error


@contextmanager
def _as_its_own(connection: asyncpg.Connection) -> Iterator[None]:
    """Tell what a handler raised from an outage: its unique key or time-out is no server that went away."""
    try:
        yield
    except Exception as error:
        if _is_gone(connection) or is_server_s_condition(error):
            raise
        raise _HandlerFailed(error) from error


def _is_gone(connection: asyncpg.Connection) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        # The pool has seen it break, and taken it back.
        return True
