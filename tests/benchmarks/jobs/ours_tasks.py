"""The task on our app, for JOB_QUEUE_PACKAGES."""

from __future__ import annotations

from benchmarks.jobs.tasks import traced
from jobs_worker.app import job_queue

__all__ = ["job_queue", "trace"]

trace = traced(job_queue)
