"""What the doctor makes of the jobs database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker_ops.doctor.findings import Finding
from worker_ops.doctor.jobs_store import JobsView
from worker_ops.jobs.opened import connected_jobs
from worker_ops.jobs.schema_store import REMEDY, SchemaStore
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker_ops.jobs.opened import JobsOperatorSettings

# Beyond any attempt that has no deadline of its own.
LONG_DOING_SECONDS = 900.0
LATE_SECONDS = 300.0
# Fewer are no trend.
MANY_FAILED = 10
GROWTH = 2
HOURS_BEFORE = 24
START_ONE = "start a jobs-worker, or the API with the worker in it (JOB_QUEUE_ENABLED=true)"


async def examine_jobs(settings: JobsOperatorSettings) -> list[Finding]:
    """Look at everything about jobs, the most urgent first; what does not answer is a finding, too."""
    async with connected_jobs(settings) as database:
        try:
            missing = await SchemaStore(database).missing()
            if missing:
                return [schema(missing)]
            return [
                Finding("jobs database", f"{database.where} answers"),
                *await _examine(JobsView(database), settings),
            ]
        except DatabaseUnavailable as error:
            return [unreachable(database.where, error)]


async def _examine(view: JobsView, settings: JobsOperatorSettings) -> list[Finding]:
    silence = settings.silence_seconds
    workers = await view.workers(silence)
    doing = await view.doing(silence, LONG_DOING_SECONDS)
    waiting = await view.waiting(LATE_SECONDS)
    return [
        alive(workers),
        stalled(doing, alive=workers["alive"]),
        long(doing),
        oldest(waiting),
        unworked(waiting),
        failures(await view.failed()),
    ]


def unreachable(where: str, error: DatabaseUnavailable) -> Finding:
    """Say that nothing is known."""
    remedy = (
        "`docker compose ps postgres-jobs`, then `docker compose restart postgres-jobs`; is JOB_QUEUE_DATABASE_URL"
        " right? (port 5433 for jobs, 5432 for the main database)"
    )
    return Finding("jobs database", f"{where} does not answer: {error}", remedy)


def schema(missing: Sequence[str]) -> Finding:
    """Judge a schema that lacks something."""
    return Finding("jobs schema", f"lacks {len(missing)} migrations, the first is {missing[0]}", f"`{REMEDY}`")


def alive(seen: Mapping[str, Any]) -> Finding:
    """Judge whether anybody works."""
    found = f"{seen['alive']} alive, {seen['known'] - seen['alive']} silent"
    return Finding("job workers", found, "" if seen["alive"] else START_ONE)


def stalled(seen: Mapping[str, Any], *, alive: int) -> Finding:
    """Judge jobs whose worker has vanished: one that lives takes them over within seconds."""
    found = f"{seen['stalled']} of {seen['doing']} at work have lost their worker"
    helps = "it gives them to others" if alive else START_ONE + ": it gives them to others"
    remedy = f"{helps}; `intelliflow jobs show {seen['a_stalled']}` is one, `intelliflow jobs retry` does it by hand"
    return Finding("stalled jobs", found, remedy if seen["stalled"] else "")


def long(seen: Mapping[str, Any]) -> Finding:
    """Judge attempts that take very long though their worker lives."""
    found = f"{seen['long']} at work for more than {LONG_DOING_SECONDS / 60:.0f} minutes"
    name = seen["a_long"]
    remedy = f"`intelliflow jobs show {name}`; `intelliflow jobs cancel {name}` asks it to end; has it a deadline?"
    return Finding("long jobs", found, remedy if seen["long"] else "")


def oldest(seen: Sequence[Mapping[str, Any]]) -> Finding:
    """Judge jobs that might run and do not, of queues that are worked."""
    late = [queue for queue in seen if queue["worked"]]
    if not late:
        return Finding("waiting jobs", f"none waits for more than {LATE_SECONDS / 60:.0f} minutes in a queue at work")
    found = ", ".join(f"{one['waiting']} of {one['queue']}, the oldest for {one['seconds']:.0f} s" for one in late)
    remedy = (
        "more jobs-workers, or raise QUEUE_CONCURRENCY; a job may also wait for others of its lock:"
        f" `intelliflow jobs show {late[0]['example']}`"
    )
    return Finding("waiting jobs", found, remedy)


def unworked(seen: Sequence[Mapping[str, Any]]) -> Finding:
    """Judge queues of which nothing is begun."""
    left = [queue for queue in seen if not queue["worked"]]
    if not left:
        return Finding("job queues", "every queue with jobs that may run is worked")
    found = ", ".join(f"{one['waiting']} jobs of {one['queue']}, and nobody begins any" for one in left)
    remedy = f"start a jobs-worker whose JOB_QUEUE_NAMES hold {left[0]['queue']} (none named: all queues)"
    return Finding("job queues", found, remedy)


def failures(seen: Mapping[str, Any]) -> Finding:
    """Judge whether more jobs fail than usually."""
    found = f"{seen['last_hour']} failed in the last hour, {seen['day_before']} in the day before it"
    growing = seen["last_hour"] >= MANY_FAILED and seen["last_hour"] > GROWTH * seen["day_before"] / HOURS_BEFORE
    remedy = "`intelliflow jobs failed --since 1h --group` says what of; mend it, then `intelliflow jobs retry-all`"
    return Finding("failed jobs", found, remedy if growing else "")
