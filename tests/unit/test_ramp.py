from __future__ import annotations

import asyncio
import time

from worker_runtime.ramp import STEP_SECONDS, STEPS, Ramp


class Crowd:
    def __init__(self, ramp: Ramp) -> None:
        self._ramp = ramp
        self.inside = self.most = self.served = 0

    async def call(self) -> None:
        await self._ramp.enter()
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0.01)
        self.inside -= 1
        self.served += 1
        self._ramp.leave()


async def test_what_never_was_out_takes_everything_at_once() -> None:
    crowd = Crowd(Ramp())
    await asyncio.gather(*(crowd.call() for _ in range(100)))

    assert crowd.most == 100


async def test_what_is_back_gets_one_call_first_and_in_the_end_all() -> None:
    ramp = Ramp()
    crowd = Crowd(ramp)
    ramp.begin()
    started = time.monotonic()
    waiting = [asyncio.create_task(crowd.call()) for _ in range(2_000)]
    await asyncio.sleep(STEP_SECONDS * 0.8)
    first, allowed = crowd.most, 2 ** ((time.monotonic() - started) // STEP_SECONDS)
    await asyncio.gather(*waiting)

    assert 1 <= first <= allowed
    assert crowd.served == 2_000
    assert crowd.most > 100
    assert time.monotonic() - started > STEP_SECONDS * (STEPS - 1)
