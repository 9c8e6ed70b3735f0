"""Steps in threads, and those who are cancelled while one runs."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from ingestion_worker.fetching.steps import finished

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


async def test_a_step_returns_and_raises(pool: ThreadPoolExecutor) -> None:
    assert await finished(pool, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await finished(pool, divmod, 7, 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_whoever_is_cancelled_waits_for_the_end_of_the_step(pool: ThreadPoolExecutor, *, fails: bool) -> None:
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        release.wait(10)
        ended.set()
        if fails:
            raise OSError("in the end")

    task = asyncio.create_task(finished(pool, step))
    await asyncio.to_thread(begun.wait)
    asyncio.get_running_loop().call_later(0.1, release.set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_step_that_hangs_is_not_waited_for_any_longer(pool: ThreadPoolExecutor) -> None:
    begun, release = threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        release.wait(30)

    task = asyncio.create_task(finished(pool, step))
    await asyncio.to_thread(begun.wait)
    # This one waits for a thread, and shall never have one.
    late = asyncio.create_task(finished(pool, begun.clear))
    await asyncio.sleep(0)  # Until it has asked for one.
    started = time.monotonic()
    for one in (task, late):
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
    assert 0.4 < time.monotonic() - started < 10
    release.set()
    await finished(pool, bool)
    assert begun.is_set()
