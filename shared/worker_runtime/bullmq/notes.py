"""What a job says and learns while it runs: progress and log lines for whoever watches, the results of its children."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_runtime.bullmq.claimed import ClaimedJob, read_integer
from worker_runtime.bullmq.scripts import STILL_CLAIMED, shipped
from worker_runtime.job import Children

if TYPE_CHECKING:
    from worker_runtime.redis.connection import RedisConnection

PROGRESS = shipped("updateProgress-3")
LOG = shipped("addLog-2")


@dataclass(slots=True, eq=False)
class JobNotes:
    """The notes of one job. Every method may raise `RedisUnavailable`; a job that was removed takes none."""

    redis: RedisConnection
    # Of the keys of the job's queue.
    prefix: bytes
    job: ClaimedJob

    async def report_progress(self, progress: Any) -> None:
        """Write the job's progress, any JSON, and tell Node's QueueEvents."""
        keys = (self.prefix + self.job.id, self.prefix + b"events", self.prefix + b"meta")
        await self.redis.run_script(PROGRESS, keys, (self.job.id, json.dumps(progress)))

    async def log(self, line: str) -> None:
        """Append a line to the job's log, of which it keeps the last few if its own option `keepLogs` says so."""
        key = self.prefix + self.job.id
        kept = max(0, read_integer(self.job.options.get("kl"))) or ""
        printable = line.encode("utf-8", "backslashreplace")
        await self.redis.run_script(LOG, (key, key + b":logs"), (self.job.id, printable, kept))

    async def children(self) -> Children:
        """Read how the job's children ended."""
        key = self.prefix + self.job.id
        processed, failed = await asyncio.gather(
            self.redis.call("HGETALL", key + b":processed"), self.redis.call("HGETALL", key + b":failed")
        )
        results = {child: json.loads(result) for child, result in pairs(processed)}
        return Children(results, dict(pairs(failed)))

    async def still_ours(self) -> bool:
        """Tell whether nobody else has been given the job since we were."""
        keys = (self.prefix + self.job.id, self.prefix + b"active")
        return bool(await self.redis.run_script(STILL_CLAIMED, keys, self.job.claim))


def pairs(flat: list[bytes]) -> list[tuple[str, str]]:
    """Take a hash apart; what others wrote may be no UTF-8."""
    texts = [part.decode("utf-8", "backslashreplace") for part in flat]
    return list(zip(texts[::2], texts[1::2], strict=True))
