"""Tasks of the storm over the jobs-worker: each run leaves a line, whatever becomes of it."""

from __future__ import annotations

import asyncio
import os
import time

from procrastinate import JobContext, RetryStrategy

from jobs_worker.app import job_queue

AT_ONCE = RetryStrategy(max_attempts=3)


def note(context: JobContext) -> None:
    """One write at the end of a file is one piece, whoever else writes."""
    file = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{context.job.id}\n".encode())
    finally:
        os.close(file)


@job_queue.task(name="quick", queue="quick", pass_context=True)
async def quick(context: JobContext) -> None:
    note(context)
    await asyncio.sleep(0.01)


@job_queue.task(name="threaded", queue="quick", pass_context=True)
def threaded(context: JobContext) -> None:
    note(context)
    time.sleep(0.01)


@job_queue.task(name="locked", queue="slow", pass_context=True, lock="one")
async def locked(context: JobContext) -> None:
    note(context)
    await asyncio.sleep(0.001)


@job_queue.task(name="shaky", queue="slow", pass_context=True, retry=RetryStrategy(max_attempts=50))
async def shaky(context: JobContext) -> None:
    note(context)
    await asyncio.sleep(0.05)
    if context.job.attempts < 2:
        raise ConnectionError("not yet")


@job_queue.task(name="hopeless", queue="slow", pass_context=True, retry=AT_ONCE)
async def hopeless(context: JobContext) -> None:
    note(context)
    raise ValueError("never")
