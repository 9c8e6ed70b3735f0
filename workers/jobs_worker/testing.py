"""For the author of a task: run one attempt as the worker would, without a database.

ended = await attempt(pack, {"order_id": "7"}, http=warehouse)
assert (ended.status, ended.error) == ("succeeded", None)
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from procrastinate.jobs import Job

from jobs_worker.app import job_queue
from jobs_worker.attempt import Attempt, Attempts
from jobs_worker.ending import Claimed, Ending
from jobs_worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Mapping

    from procrastinate.tasks import Task

    from worker_runtime.egress.calls import Asking

__all__ = ["Ending", "attempt"]

SECONDS = 300.0


async def attempt(
    task: Task[..., Any, ...],
    arguments: Mapping[str, Any],
    *,
    number: int = 1,
    job_id: int = 1,
    http: Asking | None = None,
    runtime: Any = None,
) -> Ending:
    """Run the attempt of that number and return how it ended: `succeeded`, `failed`, or `todo` for again at `retry_at`.

    `http` and `runtime` stand for those of the worker in `services_of(context)`.
    """
    job = Job(
        id=job_id,
        status="doing",
        queue=task.queue,
        lock=None,
        queueing_lock=None,
        task_name=task.name,
        task_kwargs=dict(arguments),
        attempts=number - 1,
    )
    services: Any = Services(runtime, http, None)  # type: ignore[arg-type]  # a task asks for what it needs
    attempts = Attempts(job_queue, 1, SECONDS, {"services": services})
    try:
        return await Attempt(Claimed(job, datetime.now(UTC), 0.0), attempts).run()
    finally:
        attempts.close()
