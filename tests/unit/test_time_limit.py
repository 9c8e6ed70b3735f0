"""One timer for all that runs: each scope ends at its own time, and only if it is still there."""

from __future__ import annotations

import asyncio

import pytest

from worker_runtime.time_limit import TimeLimit


async def over_after(limit: TimeLimit, work: float) -> float | None:
    """Return after how many seconds `work` was interrupted; `None` when it was not."""
    began, scope = asyncio.get_running_loop().time(), limit.begin()
    try:
        async with scope:
            await asyncio.sleep(work)
    except TimeoutError:
        assert scope.expired()
        return asyncio.get_running_loop().time() - began
    finally:
        limit.end(scope)
    return None


async def test_each_is_interrupted_at_its_own_time_and_those_that_end_in_time_are_not() -> None:
    limit, running = TimeLimit(0.2), []
    for work in (60, 0, 60, 0.01, 60):
        running.append(asyncio.create_task(over_after(limit, work)))
        await asyncio.sleep(0.05)  # So that they begin apart.
    first, second, third, fourth, fifth = await asyncio.gather(*running)
    assert (second, fourth) == (None, None)
    for seconds in (first, third, fifth):
        assert seconds == pytest.approx(0.2, abs=0.15)
        assert seconds is not None
        assert seconds >= 0.19


async def test_one_that_begins_after_all_others_ended_is_interrupted_too() -> None:
    limit = TimeLimit(0.05)
    assert await over_after(limit, 60) is not None
    assert await over_after(limit, 0) is None
    assert await over_after(limit, 60) is not None


async def test_a_cancellation_from_outside_is_none_of_its_doing() -> None:
    running = asyncio.create_task(over_after(TimeLimit(60), 60))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
