"""A jobs-worker without the process, on a real PostgreSQL: its loops, and what a test asks the tables."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
from procrastinate import App, PsycopgConnector

from jobs_worker.attempt import Attempts
from jobs_worker.jobs import Jobs
from jobs_worker.membership import Membership
from jobs_worker.registry import retry_limits
from jobs_worker.store import JobStore
from jobs_worker.upkeep import Upkeep
from jobs_worker.worker import HINTS
from worker_runtime.loops import StopSignal
from worker_runtime.metrics import Metrics
from worker_runtime.postgres import Database, Listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker_runtime.metrics import QueueMetrics

SECONDS = 20.0
QUEUE = "default"


@dataclass
class Desk:
    """The database as a test sees it, and an app to put tasks on."""

    url: str
    app: App

    async def rows(self, statement: str, *arguments: Any) -> list[Any]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def value(self, statement: str, *arguments: Any) -> Any:
        return (await self.rows(statement, *arguments))[0][0]

    async def job(self, job: int) -> Any:
        return (await self.rows("SELECT * FROM procrastinate_jobs WHERE id = $1", job))[0]

    async def errors(self, job: int) -> list[tuple[int, str]]:
        """Return what its attempts died of, each with its number."""
        statement = "SELECT attempt, error FROM procrastinate_events WHERE job_id = $1 AND type = 'error' ORDER BY id"
        return [tuple(row) for row in await self.rows(statement, job)]

    async def until(self, job: int, *statuses: str, seconds: float = SECONDS) -> Any:
        """Return the job once it has one of these statuses."""
        row = None
        async with asyncio.timeout(seconds):
            while row is None or row["status"] not in statuses:
                # Nothing tells a stranger of a change in a table.
                await asyncio.sleep(0.02)
                row = await self.job(job)
        return row

    async def soon(self, statement: str, *arguments: Any, seconds: float = SECONDS) -> None:
        """Return once the statement says true."""
        async with asyncio.timeout(seconds):
            while not await self.value(statement, *arguments):  # noqa: ASYNC110  see above
                await asyncio.sleep(0.02)


@dataclass
class Engine:
    """The loops of one worker."""

    jobs: Jobs
    membership: Membership
    upkeep: Upkeep
    store: JobStore
    metrics: Metrics
    stop: StopSignal = field(default_factory=StopSignal)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def of(self, queue: str = QUEUE) -> QueueMetrics:
        return self.metrics.for_queue(queue)

    def run(self) -> None:
        """Run the loops but the upkeep, which a test calls."""
        self.tasks = [asyncio.create_task(loop.run(self.stop)) for loop in (self.membership, self.jobs)]

    async def drain(self, grace_seconds: float = 5.0) -> None:
        self.stop.request(grace_seconds)
        await asyncio.gather(*self.tasks)
        self.tasks = []

    def freeze(self) -> None:
        """Be as good as a process that stands still: no beat, no claim; attempts go on."""
        self.jobs._slots = 0
        self.tasks[0].cancel()
        self.tasks = self.tasks[1:]

    async def vanish(self) -> None:
        """Stop as a killed process does: nothing is given back."""
        left = [*self.tasks, *self.jobs._at_work]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self.tasks = []


@asynccontextmanager
async def desk(url: str) -> AsyncIterator[Desk]:
    """Open an app of the test's own on the database."""
    app = App(connector=PsycopgConnector(conninfo=url))
    async with app.open_async():
        yield Desk(url, app)


@asynccontextmanager
async def engine(
    at: Desk,
    *,
    slots: int = 10,
    poll_seconds: float = 0.05,
    beat_seconds: float = 0.1,
    silence_seconds: float = 60.0,
    attempt_seconds: float = 30.0,
    queues: list[str] | None = None,
    run: bool = True,
) -> AsyncIterator[Engine]:
    """Open an engine for the tasks of the desk's app; it is running, and drained at the end unless it has vanished."""
    metrics, hinted = Metrics("jobs-worker"), asyncio.Event()
    async with AsyncExitStack() as opened:

        async def store(**settings: Any) -> JobStore:
            return JobStore(await opened.enter_async_context(Database(at.url, **settings)))

        attempts = Attempts(at.app, slots, attempt_seconds, {})
        opened.callback(attempts.close)
        membership = Membership(await store(), hinted.set, every_seconds=beat_seconds)
        jobs = Jobs(
            await store(listener=Listener(HINTS, hinted.set)),
            membership,
            attempts,
            metrics.for_queue,
            queues=queues,
            slots=slots,
            poll_seconds=poll_seconds,
            hinted=hinted,
        )
        background = await store()
        upkeep = Upkeep(background, retry_limits(at.app), metrics.for_queue, silence_seconds=silence_seconds)
        made = Engine(jobs, membership, upkeep, background, metrics)
        if run:
            made.run()
        try:
            yield made
        finally:
            if made.tasks:
                await made.drain(0.0)
