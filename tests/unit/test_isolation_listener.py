"""The worker's end of a child's pipe."""

from __future__ import annotations

import asyncio

from ingestion_worker.isolation.listener import Listener
from ingestion_worker.isolation.wire import framed, write


async def test_the_last_word_is_heard_of_a_child_that_is_gone() -> None:
    progress = asyncio.get_running_loop().create_future()
    listener = Listener(lambda *told: progress.set_result(told))
    with listener.lent() as pipe:
        write(pipe, framed({"progress": [1, 2]}))
        assert await progress == (1, 2)
        # After that the listener rests for a moment.
        write(pipe, framed({"done": {"pages": 2}}))
    listener.close()
    assert listener.said.last_word == {"done": {"pages": 2}}


async def test_of_many_reports_the_latest_is_passed_on() -> None:
    heard: list[tuple[int, int]] = []
    listener = Listener(lambda *told: heard.append(told))
    with listener.lent() as pipe:
        write(pipe, b"".join(framed({"progress": [done, 500]}) for done in range(1, 501)) + framed({"done": {}}))
    await listener.settled
    listener.close()
    assert heard == [(500, 500)]
    assert not listener.said.garbled
