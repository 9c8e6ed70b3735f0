"""Our worker in the soak: the whole lifecycle, as shipped.

Each run of a job is two lines in the file that SOAK_RUNS names: `["begun" or "ended", id, seconds since the epoch]`.
A line that has been written outlives its writer, however that ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from worker_runtime import Done, Job, Loop, Outcome, Runtime, Worker, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


class SoakSettings(WorkerSettings):
    own_queues = ("SOAK",)
    health_port: int = 0
    soak_runs: str = Field(description="the file to write runs into")


class Task(BaseModel):
    """How long a job takes, and how many of its attempts fail."""

    seconds: float
    fails: int = 0


class SoakWorker(Worker[SoakSettings]):
    name = "soak-worker"
    settings_type = SoakSettings
    queue_keys = ("SOAK",)

    @asynccontextmanager
    async def on_start(self, runtime: Runtime[SoakSettings]) -> AsyncIterator[Sequence[Loop]]:
        runs = os.open(runtime.settings.soak_runs, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

        def write(what: str, job_id: str) -> None:
            os.write(runs, json.dumps([what, job_id, time.time()]).encode() + b"\n")

        async def run(job: Job[Task]) -> Outcome:
            write("begun", job.id)
            await asyncio.sleep(job.payload.seconds)
            write("ended", job.id)
            if job.attempt <= job.payload.fails:
                raise RuntimeError("told to fail")
            return Done()

        yield [runtime.consumer("SOAK", Task, run)]
        os.close(runs)


if __name__ == "__main__":
    SoakWorker.main()
