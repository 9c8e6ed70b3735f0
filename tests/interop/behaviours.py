"""What a job does to its worker, by its name: the handlers of node/peer.mjs, for our side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from worker_runtime import telemetry
from worker_runtime.outcome import Done, Outcome, PermanentError

if TYPE_CHECKING:
    from worker_runtime.job import Job


class Task(BaseModel):
    """`n` is echoed, the first `times` attempts fail saying `says`, `steps` is reported as progress."""

    n: Any = None
    times: int = 0
    says: str = ""
    steps: Any = None


async def behave(job: Job[Task]) -> Outcome:
    task = job.payload
    match job.name:
        case "complete" | "children":
            return Done({"echoed": task.n})
        case "fail" if job.attempt <= task.times:
            raise RuntimeError(task.says)
        case "fail":
            return Done({"echoed": task.n})
        case "refuse":
            raise PermanentError("REFUSED", task.says)
        case "progress":
            await job.report_progress(task.steps)
            return Done()
        case "hang":
            await asyncio.Event().wait()
        case "context":
            return Done({"metadata": telemetry.inject()})
    raise AssertionError(f"no such behaviour: {job.name}")
