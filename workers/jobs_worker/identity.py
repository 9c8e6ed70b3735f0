"""What tells a job from every other one, for receivers that know repetitions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

if TYPE_CHECKING:
    from procrastinate import JobContext

__all__ = ["idempotency_key"]


def idempotency_key(context: JobContext, part: str = "") -> str:
    """Return a UUID that is the same for every attempt of the job, and for no other; `part` tells several effects.

    A job's number alone would not do: a database that was made anew counts from one again.
    """
    job = context.job
    said = json.dumps(job.task_kwargs, sort_keys=True)
    return str(uuid5(uuid5(NAMESPACE_URL, f"job {job.id} {job.task_name} {said}"), part))
