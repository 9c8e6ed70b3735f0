"""Job schedulers: whoever claims a scheduler's job makes the next one, as Node's worker does, or the schedule ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from worker_runtime.bullmq.claimed import read_integer
from worker_runtime.bullmq.scripts import now_ms
from worker_runtime.cron import next_due
from worker_runtime.redis.connection import PAUSE_AFTER_ERROR_SECONDS, RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_runtime.bullmq.leases import Lease
    from worker_runtime.bullmq.scripts import QueueScripts

log = structlog.get_logger()


async def make_next(scripts: QueueScripts, lease: Lease) -> None:
    """Make the job after this one, if a scheduler made this one. Waits for Redis; a schedule nobody can read ends here.

    Doing it twice is harmless: Redis makes a successor of the scheduler's newest job only.
    """
    scheduler = lease.job.fields.get(b"rjk")
    while scheduler is not None and not lease.gone:
        try:
            if following := next_options(lease.job.options, scheduler.decode(), now_ms()):
                await scripts.make_next_of_schedule(lease.job, scheduler, *following)
        except RedisUnavailable:
            await asyncio.sleep(PAUSE_AFTER_ERROR_SECONDS)
            continue
        except Exception as error:  # noqa: BLE001  the options are a producer's: whatever they break ends the schedule only
            name = scheduler.decode("utf-8", "backslashreplace")
            log.error("schedule_ended", scheduler=name, jobId=str(lease.job), error=str(error))  # noqa: TRY400
        return


def next_options(options: Mapping[str, Any], scheduler: str, now: int) -> tuple[int, dict[str, Any]] | None:
    """Return when the next job is due (ms since the epoch) and its options; `None` when the schedule is over.

    For `every` Redis itself works out the time. Source: `upsertJobScheduler` of Node's JobScheduler. Raises ValueError
    and the like for a cron pattern or time zone that cannot be read.
    """
    repeat = dict(options.get("repeat") or {})
    repeat.pop("immediately", None)
    count, limit, end = read_integer(repeat.get("count")) + 1, repeat.get("limit"), read_integer(repeat.get("endDate"))
    if (limit is not None and count > read_integer(limit)) or (end and now > end):
        return None
    start = max(now, read_integer(options.get("prevMillis")), read_integer(repeat.get("startDate")))
    pattern = repeat.get("pattern")
    due = next_due(pattern, start, repeat.get("tz")) if pattern else start
    if pattern and end and due > end:
        return None
    following = {
        "attempts": 0,
        **options,
        "jobId": f"repeat:{scheduler}:{due}",
        "delay": max(0, due - now),
        "timestamp": now,
        "repeatJobKey": scheduler,
        "repeat": {**repeat, "count": count},
    }
    return due, {**following, "prevMillis": due} if pattern else following
