"""What a process does that may have been frozen: by SIGSTOP, a paused machine, a debugger, a very long stall.

Meanwhile its locks ran out, and others were given its jobs and went on. It cannot know before it has asked: so what it
was told long ago counts for nothing. What it was in the midst of when it froze, nobody can take back: a handler gets as
far as its next `await`, and is then interrupted when the lock is found to be lost.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from worker_runtime.outcome import Defer
from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from events_worker.event import EventJob
    from worker_runtime.job import Job

# A job's lock lives for twice as long by default, and nothing that is awaited before a handler takes so long.
STALE_SECONDS = 5.0
AGAIN_SECONDS = 1.0


def is_stale(asked_at: float) -> bool:
    """Tell whether an answer that was asked for then, by the monotonic clock, may not hold any more."""
    return time.monotonic() - asked_at > STALE_SECONDS


async def is_surely_lost(job: Job[EventJob]) -> bool:
    """Tell whether somebody else has been given the job; not when Redis cannot say."""
    try:
        return not await job.still_ours()
    except (RedisUnavailable, RedisError):
        return False


def was_frozen() -> Defer:
    """Do no more; if the job is still ours after all, it comes again."""
    return Defer("FROZEN", "this process stood still, and another one may have the event", AGAIN_SECONDS)
