"""A worker that shouts what it is told."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from pydantic import BaseModel, Field

from worker_runtime import Done, Job, Loop, Outcome, Runtime, Worker, WorkerSettings


class ShoutSettings(WorkerSettings):
    own_queues = ("SHOUT",)


class Shout(BaseModel):
    text: str = Field(min_length=1)


async def shout(job: Job[Shout]) -> Outcome:
    return Done(job.payload.text.upper())


class ShoutWorker(Worker[ShoutSettings]):
    name = "shout-worker"
    settings_type = ShoutSettings
    queue_keys = ("SHOUT",)

    @asynccontextmanager
    async def on_start(self, runtime: Runtime[ShoutSettings]) -> AsyncIterator[Sequence[Loop]]:
        yield [runtime.consumer("SHOUT", Shout, shout)]


if __name__ == "__main__":
    ShoutWorker.main()
