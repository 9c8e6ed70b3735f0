"""What a job says and learns while it runs: progress and log lines for whoever watches, the results of its children."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from worker_runtime.bullmq.scripts import ClaimedJob, read_integer, shipped
from worker_runtime.job import Children

if TYPE_CHECKING:
    from worker_runtime.bullmq.connection import RedisConnection
    from worker_runtime.bullmq.names import QueueName

PROGRESS = shipped("updateProgress-3")
LOG = shipped("addLog-2")


class JobNotes:
    """The notes of one queue's jobs. Every method may raise `RedisUnavailable`; a job that was removed takes none."""

    def __init__(self, redis: RedisConnection, queue: QueueName) -> None:
        self._redis = redis
        self._prefix = queue.key("").encode()

    async def report_progress(self, job: ClaimedJob, progress: Any) -> None:
        """Write a job's progress, any JSON, and tell Node's QueueEvents."""
        keys = (self._prefix + job.id, self._prefix + b"events", self._prefix + b"meta")
        await self._redis.run_script(PROGRESS, keys, (job.id, json.dumps(progress)))

    async def log(self, job: ClaimedJob, line: str) -> None:
        """Append a line to a job's log, of which it keeps the last few if its own option `keepLogs` says so."""
        key = self._prefix + job.id
        kept = max(0, read_integer(job.options.get("kl"))) or ""
        printable = line.encode("utf-8", "backslashreplace")
        await self._redis.run_script(LOG, (key, key + b":logs"), (job.id, printable, kept))

    async def children(self, job: ClaimedJob) -> Children:
        """Read how a job's children ended."""
        key = self._prefix + job.id
        processed, failed = await asyncio.gather(
            self._redis.call("HGETALL", key + b":processed"), self._redis.call("HGETALL", key + b":failed")
        )
        results = {child: json.loads(result) for child, result in pairs(processed)}
        return Children(results, dict(pairs(failed)))


def pairs(flat: list[bytes]) -> list[tuple[str, str]]:
    """Take a hash apart; what others wrote may be no UTF-8."""
    texts = [part.decode("utf-8", "backslashreplace") for part in flat]
    return list(zip(texts[::2], texts[1::2], strict=True))
