"""The relay keeps no more in Redis than the handlers can soon work off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from engine_harness import until
from outbox_harness import EVENTS, Bench, opened_bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@pytest.fixture
async def bench(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    async with opened_bench(redis_url, database_url) as made:
        yield made


async def test_the_relay_waits_for_the_handlers_and_goes_on_with_them(bench: Bench) -> None:
    ids = await bench.commit(300)
    with capture_logs() as lines:
        async with bench.relaying(most_waiting=100, poll_seconds=0.01, batch_size=50) as instance:
            await until(lambda: at_least(instance.metrics.held_back._value.get, 1))
            await until(lambda: holds(bench.waiting(), ids[:100]))
            assert await bench.count("processed_at IS NULL") == 200
            assert not instance.relay.drained.is_set()
            for left in (100, 0):
                await worked_off(bench, 100)
                await until(lambda left=left: holds(bench.count("processed_at IS NULL"), left))  # type: ignore[misc]
            await worked_off(bench, 100)
            await until(lambda: below(instance.metrics.held_back._value.get, 1))
    said = [line["event"] for line in lines if line["event"].startswith("outbox_relay")]
    assert said[0] == "outbox_relay_holds_back"
    assert said[-1] == "outbox_relay_goes_on"


async def test_many_relays_stay_near_the_limit_together(bench: Bench) -> None:
    await bench.commit(2_000)
    async with (
        bench.relaying(most_waiting=1_000, poll_seconds=0.01) as one,
        bench.relaying(most_waiting=1_000, poll_seconds=0.01) as other,
    ):
        await until(lambda: at_least(one.metrics.held_back._value.get, 1))
        await until(lambda: at_least(other.metrics.held_back._value.get, 1))
        # Each asks once for a twentieth: so much may be counted twice, or not at all.
        assert 900 <= len(await bench.waiting()) <= 1_100


async def test_events_that_follow_a_handled_one_are_not_held_back(bench: Bench) -> None:
    first, second = await bench.commit(2, aggregate="a")
    async with bench.relaying(most_waiting=1, poll_seconds=0.01) as instance:
        await until(lambda: holds(bench.waiting(), [first]))
        await instance.turns.finish(first)
        await until(lambda: holds(bench.waiting(), [first, second]))


async def test_without_a_limit_nobody_is_held_back(bench: Bench) -> None:
    ids = await bench.commit(300)
    async with bench.relaying(most_waiting=0) as instance:
        await until(lambda: holds(bench.waiting(), ids))
        assert instance.metrics.held_back._value.get() == 0


async def worked_off(bench: Bench, jobs: int) -> None:
    async def all_there() -> bool:
        return len(await bench.waiting()) == jobs

    await until(all_there)
    await asyncio.gather(*(bench.redis.call("RPOP", EVENTS.key("wait")) for _ in range(jobs)))


async def at_least(value: Callable[[], float], least: float) -> bool:
    return value() >= least


async def below(value: Callable[[], float], most: float) -> bool:
    return value() < most


async def holds(question: Awaitable[object], answer: object) -> bool:
    return await question == answer
