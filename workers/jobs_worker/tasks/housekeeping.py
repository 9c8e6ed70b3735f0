"""Keeps the jobs database small."""

from __future__ import annotations

import structlog
from procrastinate import JobContext  # noqa: TC002  a task's annotations are read by whoever inspects it

from jobs_worker.app import job_queue
from jobs_worker.backoff import Backoff
from jobs_worker.deadline import deadline
from jobs_worker.services import services_of

__all__ = ["purge"]

log = structlog.get_logger()

QUEUE = "housekeeping"
CHUNK = 500
ENDED_WELL = ("succeeded", "cancelled", "aborted")


@job_queue.periodic(cron="*/10 * * * *")
@job_queue.task(
    name="housekeeping.purge", queue=QUEUE, queueing_lock="housekeeping.purge", pass_context=True, retry=Backoff()
)
@deadline(540)
async def purge(context: JobContext, timestamp: int) -> None:
    """Delete jobs that are older than JOB_QUEUE_HISTORY_DAYS, failed ones JOB_QUEUE_FAILED_HISTORY_DAYS.

    A chunk at a time: nobody waits for a long statement. `timestamp` is when it was due, in seconds.
    """
    services = services_of(context)
    settings, store = services.runtime.settings, services.store
    days = dict.fromkeys(ENDED_WELL, settings.job_queue_history_days)
    deleted = 0
    for status, age in (days | {"failed": settings.job_queue_failed_history_days}).items():
        while chunk := await store.purge(status, age, CHUNK):
            deleted += chunk
    while await store.forget_keys(settings.job_queue_history_days, CHUNK):
        pass
    log.info("jobs_purged", deleted=deleted, dueAt=timestamp)
