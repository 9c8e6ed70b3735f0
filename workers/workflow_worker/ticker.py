"""Runs the jobs of the schema `cron` where there is no pg_cron: each when it is due, once, one run of it at a time."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from worker_runtime.cron import Crontab
from worker_runtime.loops import Heartbeat, wait_at_most
from worker_runtime.postgres import DatabaseUnavailable
from workflow_worker.store.cron import NotOurs

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import datetime

    from worker_runtime.loops import StopSignal
    from worker_runtime.workflow_metrics import WorkflowMetrics
    from workflow_worker.store.cron import CronStore, Job

__all__ = ["Ticker"]

log = structlog.get_logger()

EVERY_SECONDS = 1.0
# Between two clocks a look may come too early.
SHORTEST_SECONDS = 0.01
# Whether the schema is ours to run changes when somebody installs something.
LOOK_AGAIN_SECONDS = 60.0
KEEP_SECONDS = 30.0
MOST_COMMANDS = 8
# How long a command that was cancelled may take to end.
CANCEL_SECONDS = 2.0
# A job that runs already, for another worker, is tried again so much later.
BUSY_SECONDS = 5.0
# Somebody else may log in as the one who may run it: only what nobody has taken for so long is refused.
REFUSED_AFTER = timedelta(minutes=1)
# A clock put back by no more is waited for, so that nothing comes twice; see `_turned_back`.
SMALL_STEP, LARGE_STEP = timedelta(minutes=1), timedelta(hours=3)


class Ticker:
    """Looks at the clock, which is the database's, and runs what is due.

    Any number of processes may tick. What was missed is made up for once. Where the schema is pg_cron's, it rests.
    """

    name = "cron-ticker"

    def __init__(self, store: CronStore, metrics: WorkflowMetrics, *, every_seconds: float = EVERY_SECONDS) -> None:
        self.heartbeat = Heartbeat()
        self._store = store
        self._metrics = metrics
        self._every_seconds = every_seconds
        self._leads = False
        self._kept = float("-inf")
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._busy: dict[int, float] = {}
        self._unreadable: set[int] = set()

    async def run(self, stop: StopSignal) -> None:
        """See `Loop`. Commands that are under way at the end of the grace are cancelled."""
        while not stop.requested.is_set():
            pause = await self.heartbeat.while_waiting(self._turn())
            await self.heartbeat.while_waiting(stop.sleep(pause))
        await self.heartbeat.while_waiting(self._end(stop))

    async def _turn(self) -> float:
        """Do one round and return how long to rest."""
        self._reap()
        try:
            if not await self._is_led():
                return self._every_seconds
            await self._keep()
            return await self._start()
        except DatabaseUnavailable as outage:
            # The claims poll the same server more often and are the ones to say so.
            log.debug("cron_ticker_waits", error=str(outage))
            return self._every_seconds
        except NotOurs as reason:
            self._follow()
            log.info("cron_ticker_rests", reason=str(reason))
            return LOOK_AGAIN_SECONDS

    def _reap(self) -> None:
        for jobid, run in list(self._runs.items()):
            if run.done():
                self._runs.pop(jobid).result()

    async def _is_led(self) -> bool:
        leads = await self._store.lead()
        if leads and not self._leads:
            log.info("cron_ticker_leads")
        self._leads = leads
        self._metrics.cron_leads.set(leads)
        return leads

    def _follow(self) -> None:
        self._leads = False
        self._metrics.cron_leads.set(0)

    async def _keep(self) -> None:
        if time.monotonic() - self._kept >= KEEP_SECONDS:
            await self._store.keep()
            self._kept = time.monotonic()

    async def _start(self) -> float:
        """Start what is due and return the seconds to what is due next."""
        resting = [job for job in await self._store.jobs() if job.jobid not in self._runs]
        pauses = [await self._consider(job, schedule) for job in resting if (schedule := self._schedule_of(job))]
        return max(min(pauses, default=self._every_seconds), SHORTEST_SECONDS)

    def _schedule_of(self, job: Job) -> Crontab | None:
        try:
            return Crontab.read(job.schedule)
        except ValueError as error:
            if job.jobid not in self._unreadable:
                log.error("cron_job_unreadable", jobId=job.jobid, jobName=job.jobname, error=str(error))  # noqa: TRY400
            self._unreadable.add(job.jobid)
            return None

    async def _consider(self, job: Job, schedule: Crontab) -> float:
        """Do what is to be done with a job now, and return the seconds to when it is due next."""
        if _turned_back(job, schedule):
            await self._store.skip(job)
        elif not job.own:
            await self._refuse(job, schedule.due(job.done_until, job.now - REFUSED_AFTER))
        elif (due := schedule.due(job.done_until, job.now)) is None:
            following = schedule.next(job.done_until) or job.now + LARGE_STEP
            return min(self._every_seconds, (following - job.now).total_seconds())
        elif len(self._runs) < MOST_COMMANDS and self._busy.get(job.jobid, 0.0) <= time.monotonic():
            self._runs[job.jobid] = asyncio.create_task(self._run(job, due))
        return self._every_seconds

    async def _refuse(self, job: Job, due: datetime | None) -> None:
        if due is not None and await self._store.refuse(job, due):
            self._metrics.cron_ran("refused")
            log.warning("cron_job_of_another_login", jobId=job.jobid, jobName=job.jobname)

    async def _run(self, job: Job, due: datetime) -> None:
        try:
            ran = await self._store.run(job, due)
        except (DatabaseUnavailable, NotOurs) as reason:
            log.info("cron_job_waits", jobId=job.jobid, jobName=job.jobname, reason=str(reason))
            return
        if ran is None:
            self._busy[job.jobid] = time.monotonic() + BUSY_SECONDS
            return
        self._metrics.cron_ran(ran.status)
        if ran.status == "failed":
            # What PostgreSQL said may be personal: cron.job_run_details has it.
            log.warning("cron_job_failed", jobId=job.jobid, jobName=job.jobname)

    async def _end(self, stop: StopSignal) -> None:
        self._follow()
        await self._try(self._store.leave())
        if runs := list(self._runs.values()):
            await wait_at_most(float("inf"), stop.deadline(), asyncio.wait(runs))
            await self._try(self._store.cancel())
            await asyncio.wait(runs, timeout=CANCEL_SECONDS)
            for run in runs:
                run.cancel()
        await self._store.close()

    async def _try(self, farewell: Awaitable[None]) -> None:
        try:
            await farewell
        except (DatabaseUnavailable, NotOurs) as reason:
            log.debug("cron_ticker_ends_without_postgres", reason=str(reason))


def _turned_back(job: Job, schedule: Crontab) -> bool:
    """Tell whether the clock was put back by so much that the job would rest for too long.

    A job of every few minutes may come twice then; one that names its hour is waited for, up to three of them.
    """
    return job.done_until - job.now > (LARGE_STEP if schedule.fixed else SMALL_STEP)
