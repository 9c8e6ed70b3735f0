"""The jobs-worker: Procrastinate's queue, worked by loops of ours."""

from __future__ import annotations

import asyncio
import functools
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

from jobs_worker.app import job_queue
from jobs_worker.attempt import Attempts
from jobs_worker.counting import CountedQueue, Depths
from jobs_worker.jobs import Jobs
from jobs_worker.membership import BEATS_PER_SILENCE, Membership
from jobs_worker.periodic import Periodic
from jobs_worker.registry import queues_of, retry_limits
from jobs_worker.services import Services
from jobs_worker.settings import JobsSettings
from jobs_worker.store import JobStore
from jobs_worker.upkeep import Upkeep
from worker_runtime.egress import egress
from worker_runtime.postgres import Database, Listener, SchemaOutdated
from worker_runtime.postgres.start import until_answered
from worker_runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker_runtime.loops import Loop
    from worker_runtime.metrics import QueueMetrics
    from worker_runtime.runtime import Runtime

__all__ = ["JobsWorker"]

# What Procrastinate notifies of a new job in any queue.
HINTS = "procrastinate_any_queue_v1"
# Counting and rescuing take longer than a claim may.
UPKEEP_SECONDS = 30.0
ATTEMPTS = 5


class JobsWorker(Worker[JobsSettings]):
    """Runs the tasks of the job queue."""

    name: ClassVar[str] = "jobs-worker"
    settings_type = JobsSettings
    # Some tasks do, and wait for it: an application that only has jobs has no Redis.
    needs_redis: ClassVar[bool] = False

    @asynccontextmanager
    async def on_start(self, runtime: Runtime[JobsSettings]) -> AsyncIterator[Sequence[Loop]]:
        """Wait for a database with a current schema, open what is needed, yield the loops."""
        settings, hinted = runtime.settings, asyncio.Event()
        async with AsyncExitStack() as opened:
            url = settings.job_queue_database_url.get_secret_value()
            connection = functools.partial(Database, url, application=self.name)
            database = await opened.enter_async_context(connection(listener=Listener(HINTS, hinted.set)))
            beats = await opened.enter_async_context(connection())
            upkeep = JobStore(await opened.enter_async_context(connection(command_seconds=UPKEEP_SECONDS)))
            runtime.require("postgres-jobs", beats.ping, where=beats.where)
            await runtime.wait_for("postgres-jobs")
            await until_answered(functools.partial(_refuse_old_schema, upkeep))
            await opened.enter_async_context(job_queue.open_async())
            services = Services(runtime, await opened.enter_async_context(egress(settings)), upkeep)
            attempts = Attempts(
                job_queue, settings.queue_concurrency, settings.job_queue_task_timeout_ms / 1000, {"services": services}
            )
            opened.callback(attempts.close)
            metrics_of = _queues(runtime, upkeep)
            silence = settings.job_queue_stalled_after_ms / 1000
            membership = Membership(JobStore(beats), hinted.set, every_seconds=silence / BEATS_PER_SILENCE)
            jobs = Jobs(
                JobStore(database),
                membership,
                attempts,
                metrics_of,
                queues=settings.worked_queues(),
                slots=settings.queue_concurrency,
                poll_seconds=settings.job_queue_poll_interval_ms / 1000,
                hinted=hinted,
            )
            rescue = Upkeep(upkeep, retry_limits(job_queue), metrics_of, silence_seconds=silence)
            runtime.log.info("job_queue_worker_started", queues=settings.worked_queues() or "all")
            yield [jobs, membership, rescue, Periodic(job_queue)]


async def _refuse_old_schema(store: JobStore) -> None:
    if not await store.is_current():
        raise SchemaOutdated("the jobs database has no current schema: run ./scripts/jobs/apply-schema.sh, then start")


def _queues(runtime: Runtime[JobsSettings], store: JobStore) -> _MetricsOf:
    metrics_of = _MetricsOf(runtime, Depths(store))
    for queue in runtime.settings.worked_queues() or queues_of(job_queue):
        metrics_of(queue)
    return metrics_of


class _MetricsOf:
    """The metrics of each queue there is; one that nobody knew of is counted from its first job on."""

    def __init__(self, runtime: Runtime[JobsSettings], depths: Depths) -> None:
        self._runtime = runtime
        self._depths = depths
        self._known: set[str] = set()

    def __call__(self, queue: str) -> QueueMetrics:
        runtime = self._runtime
        if queue not in self._known:
            self._known.add(queue)
            runtime.watch.count(CountedQueue(queue, self._depths))
        return runtime.metrics.for_queue(queue, concurrency=runtime.settings.queue_concurrency, attempts=ATTEMPTS)
