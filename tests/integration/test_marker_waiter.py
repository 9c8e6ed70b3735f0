"""Giving up a blocking read takes as long as a round trip, however early it comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.waiter import MarkerWaiter
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def waiter(redis_url: str) -> AsyncIterator[MarkerWaiter]:
    blocking, commands = (RedisConnection(redis_url, client_name=name) for name in ("blocking", "commands"))
    await blocking.open()
    await commands.open()
    yield MarkerWaiter(blocking, commands, QueueName("intelliflow", "events"))
    await blocking.close()
    await commands.close()


@pytest.mark.parametrize("turns", range(12))
async def test_a_read_that_has_hardly_begun_is_released_at_once(waiter: MarkerWaiter, turns: int) -> None:
    never = asyncio.Event()
    for _ in range(20):
        await waiter.wait(0, never)
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.wait_for(waiter.release(), 1)
