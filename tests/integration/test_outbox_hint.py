"""The wake-up hint of the documents: soon, seldom, and never needed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from engine_harness import until
from outbox_harness import Bench, opened_bench
from producers.producer import example
from worker_suite import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from embedded_stack import PostgresServer

NEVER = 60.0


@pytest.fixture
async def bench(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    async with opened_bench(redis_url, database_url) as made:
        yield made


def hint_for(database_url: str, every_seconds: float = 0.005) -> Any:
    hint = example("outbox_hint").OutboxHint(database_url, every_seconds)
    hint.start()
    return hint


class Listener:
    """Counts what the relay would hear."""

    def __init__(self, database_url: str) -> None:
        self._connection = psycopg.connect(database_url, autocommit=True)
        self._connection.execute("LISTEN domain_event_outbox")
        self._heard = 0

    @property
    def heard(self) -> int:
        self._heard += len(list(self._connection.notifies(timeout=0)))
        return self._heard

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def listener(database_url: str) -> Iterator[Listener]:
    made = Listener(database_url)
    yield made
    made.close()


async def test_a_hint_wakes_a_relay_that_would_sleep_for_a_minute(bench: Bench) -> None:
    hint = hint_for(bench.database_url)
    async with bench.relaying(poll_seconds=NEVER):
        for _ in range(3):
            (event_id,) = await bench.commit()
            hint.committed.set()
            await until(lambda: holds(bench, event_id))  # noqa: B023  awaited at once


async def holds(bench: Bench, event_id: str) -> bool:
    return event_id in await bench.waiting()


def test_many_commits_are_few_hints_and_the_last_is_not_forgotten(database_url: str, listener: Listener) -> None:
    hint, started = hint_for(database_url, every_seconds=0.05), time.monotonic()
    while time.monotonic() < started + 0.5:
        hint.committed.set()
    wait_for(lambda: not hint.committed.is_set(), what="the last hint")
    wait_for(lambda: listener.heard >= 2, what="hints")
    # The one that is being told when the clock is read, and the first, which waits for nobody.
    assert listener.heard <= (time.monotonic() - started) / 0.05 + 2


def test_nothing_committed_is_no_hint(database_url: str, listener: Listener) -> None:
    hint = hint_for(database_url)
    hint.committed.set()
    wait_for(lambda: listener.heard == 1, what="the hint")
    other = hint_for(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("NOTIFY domain_event_outbox, 'the end'")
    wait_for(lambda: listener.heard == 2, what="the end")
    assert not other.committed.is_set()
    assert listener.heard == 2


def test_a_server_that_was_away_is_told_when_it_is_back(own_postgres: PostgresServer) -> None:
    hint = hint_for(own_postgres.url)
    own_postgres.kill()
    hint.committed.set()
    own_postgres.start()
    listener = Listener(own_postgres.url)

    def told() -> bool:
        hint.committed.set()
        return listener.heard > 0

    wait_for(told, what="a hint after the return")
    listener.close()
