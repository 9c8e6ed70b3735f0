"""The `bullmq` package's own Queue and Worker as a contender, on uvloop, which is kinder to it than its default."""

from __future__ import annotations

import json
from typing import Any

import uvloop
from bullmq import Queue, Worker

from benchmarks.stopwatch import Stopwatch, Task

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


def options(task: Task) -> dict[str, Any]:
    return {"connection": task.url, "prefix": PREFIX}


if __name__ == "__main__":
    given = Task.given()
    uvloop.run((enqueue if given.role == "enqueue" else work)(given))
