"""What a job does to its worker, by its name: the handlers of node/peer.mjs, for our side."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from worker_runtime import telemetry
from worker_runtime.outcome import Defer, Done, Hold, Outcome, PermanentError

if TYPE_CHECKING:
    from worker_runtime.job import Job


class Task(BaseModel):
    """`n` is echoed or waited for, the first `times` attempts fail saying `says`, `steps` are reported or logged."""

    n: Any = None
    times: int = 0
    says: str = ""
    steps: Any = None


async def behave(job: Job[Task]) -> Outcome:
    task = job.payload
    match job.name:
        case "complete":
            return Done({"echoed": task.n})
        case "fail" if job.attempt <= task.times:
            raise RuntimeError(task.says)
        case "fail":
            return Done({"echoed": task.n})
        case "refuse":
            raise PermanentError("REFUSED", task.says)
        case "progress" | "log" | "children":
            return await take_notes(job)
        case "hang":
            await asyncio.Event().wait()
        case "context":
            return Done({"metadata": telemetry.inject()})
    raise AssertionError(f"no such behaviour: {job.name}")


async def take_notes(job: Job[Task]) -> Outcome:
    match job.name:
        case "progress":
            await job.report_progress(job.payload.steps)
        case "log":
            for line in job.payload.steps:
                await job.log(line)
        case "children":
            children = await job.children()
            return Done({"results": children.results, "failures": children.failures})
    return Done()


class Actor:
    """The behaviours that remember: jobs that run until a test lets them end, and those that are put off once."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self._released: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def release(self, job_id: str) -> None:
        self._released[job_id].set()

    async def __call__(self, job: Job[Task]) -> Outcome:
        self.begun[job.id] += 1
        again = self.begun[job.id] > 1
        match job.name:
            case "hold":
                await self._released[job.id].wait()
                return Done({"echoed": job.payload.n})
            case "defer":
                return Done() if again else Defer("LATER", "not now", job.payload.n / 1000)
            case "limit":
                return Done() if again else Hold("LATER", "nobody now", job.payload.n / 1000)
        return await behave(job)
