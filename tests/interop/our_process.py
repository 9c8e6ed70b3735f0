"""Our worker as a process of its own, to be killed: `python our_process.py`, told by OURS what to work.

It says on stdout what it runs, one JSON a line, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

# Run as a file, its own folder is what Python searches.
sys.path.insert(0, str(Path(__file__).parents[1]))

from interop.behaviours import Task, behave
from interop.our_worker import LIKE_NODE, our_worker
from worker_runtime.bullmq.names import QueueName
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker_runtime.job import Job
    from worker_runtime.outcome import Outcome


async def main(url: str, prefix: str, name: str, options: dict[str, Any]) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    redis = RedisConnection(url, client_name="ours", timeout_seconds=5)
    await redis.open()
    async with our_worker(redis, url, QueueName(prefix, name), replace(LIKE_NODE, **options), say_and_behave):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await redis.close()


async def say_and_behave(job: Job[Task]) -> Outcome:
    sys.stdout.write(json.dumps({"ran": job.id}) + "\n")
    sys.stdout.flush()
    return await behave(job)


@contextlib.asynccontextmanager
async def our_process(url: str, queue: QueueName, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run it for the length of the block, or until the test kills it."""
    settings = json.dumps({"url": url, "prefix": queue.prefix, "name": queue.name, "options": options})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "OURS": settings},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


if __name__ == "__main__":
    asyncio.run(main(**json.loads(os.environ["OURS"])))
