"""The `bullmq` package's own Queue and Worker as a contender, on the loop it gets or, asked by a word, on uvloop."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uvloop
from bullmq import Queue, Worker

from benchmarks.stopwatch import Arrivals, Stopwatch, Task, say

PREFIX, NAME = "intelliflow", "events"


async def enqueue(task: Task) -> None:
    queue, watch, event = Queue(NAME, options(task)), Stopwatch(task.jobs), json.loads(task.body)
    await queue.getJobCounts("wait")
    watch.start()
    for size in task.calls():
        await queue.addBulk([{"name": "event", "data": event, "opts": {}} for _ in range(size)])
    watch.stop()
    await queue.close()
    watch.report()


async def work(task: Task) -> None:
    watch = Stopwatch(task.jobs)

    async def process(job: Any, token: str) -> None:
        watch.hit()

    worker = Worker(NAME, process, {**options(task), "concurrency": task.concurrency})
    await watch.done.wait()
    await worker.close()
    watch.report()


async def watch(task: Task) -> None:
    arrivals = Arrivals(task.jobs)

    async def process(job: Any, token: str) -> None:
        arrivals.note(job.data["eventId"])
        await asyncio.sleep(task.hold_seconds)

    limiter = {"limiter": {"max": task.limit_max, "duration": task.limit_ms}} if task.limit_max else {}
    worker = Worker(NAME, process, {**options(task), "concurrency": task.concurrency, **limiter})
    await worker.client.ping()
    say("ready")
    await arrivals.done.wait()
    await worker.close()


def options(task: Task) -> dict[str, Any]:
    return {"connection": task.url, "prefix": PREFIX}


if __name__ == "__main__":
    given = Task.given()
    run = uvloop.run if "uvloop" in sys.argv else asyncio.run
    run({"enqueue": enqueue, "work": work, "watch": watch}[given.role](given))
