"""How long work stands still when a worker is killed, or when Redis goes away and comes back."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.alertness import producer
from benchmarks.contenders import BODY, Contender, fresh_redis
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.redis.connection import RedisUnavailable

HELD_JOBS = 10
# Longer is shown as this.
PATIENCE_SECONDS = 90.0


def measure_outages(everybody: list[Contender], away_seconds: float) -> list[dict[str, Any]]:
    """Return a row for each contender, of one run each: these take longest."""
    return [
        {
            "contender": contender.name,
            "killedSeconds": asyncio.run(killed(contender)),
            "awaySeconds": asyncio.run(away(contender, away_seconds)),
        }
        for contender in everybody
    ]


async def killed(contender: Contender) -> float:
    """Kill a worker that runs jobs and return how many seconds later the last of them runs at another, idle one."""
    with fresh_redis() as server, contender.watching(server.url, HELD_JOBS + 1, hold_seconds=600) as first:
        async with producer(server) as queue:
            await queue.add_bulk([NewJob("event", {**BODY, "eventId": str(number)}) for number in range(HELD_JOBS)])
        await asyncio.to_thread(first.arrivals, HELD_JOBS)
        with contender.watching(server.url, HELD_JOBS) as second:
            first.process.kill()
            died = time.monotonic()
            began = await asyncio.to_thread(second.arrivals, HELD_JOBS, PATIENCE_SECONDS)
            return max(began.values()) - died if len(began) == HELD_JOBS else PATIENCE_SECONDS


async def away(contender: Contender, seconds: float) -> float:
    """Kill Redis, start it again after some seconds, and return how long after that an idle worker runs a new job."""
    with fresh_redis(durable=True) as server, contender.watching(server.url, 1) as watched:
        server.kill()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.start)
        back = time.monotonic()
        async with producer(server) as queue:
            while True:
                try:
                    await queue.add(NewJob("event", {**BODY, "eventId": "after"}, job_id="after"))
                except RedisUnavailable:
                    continue
                break
        began = await asyncio.to_thread(watched.arrivals, 1, PATIENCE_SECONDS)
        return began.get("after", back + PATIENCE_SECONDS) - back
