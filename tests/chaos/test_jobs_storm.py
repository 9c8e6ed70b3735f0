"""Three jobs-workers under SIGKILL, frozen, with their database restarted and their connections ended: nothing is lost.

STORM_SECONDS makes it longer, STORM_SEED repeats one.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from embedded_stack import PostgresServer
from worker_ops.jobs.schema import migrate_jobs
from worker_suite import Process, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = float(os.environ.get("STORM_SECONDS", "8"))
SEED = int(os.environ.get("STORM_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
SILENCE_MS = 5_000
BATCH = {"quick": 20, "threaded": 10, "locked": 5, "shaky": 3, "hopeless": 2}
DEFER = """
SELECT procrastinate_defer_jobs_v1(array_agg(
    ROW(%s, %s, 0, CASE WHEN %s = 'locked' THEN 'one' END, NULL, '{}', NULL)::procrastinate_job_to_defer_v1))
  FROM generate_series(1, %s)
"""
RESET = """
UPDATE procrastinate_jobs SET status = 'todo', started_at = NULL
 WHERE id = (SELECT id FROM procrastinate_jobs WHERE status = 'doing' LIMIT 1) AND status = 'doing' RETURNING id
"""
UNFINISHED = (
    "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing') AND queue_name <> 'housekeeping'"
)
# Of each job: what it has been through, as the tables say.
TOLD = """
SELECT job.id, task_name, status::text, attempts,
       (SELECT count(*) FROM procrastinate_events WHERE job_id = job.id AND type = 'started'),
       (SELECT count(*) FROM procrastinate_events WHERE job_id = job.id AND type = 'error'),
       (SELECT count(*) FROM procrastinate_events WHERE job_id = job.id AND error LIKE 'STALLED%'),
       (SELECT count(*) FROM procrastinate_events WHERE job_id = job.id AND type = 'deferred_for_retry')
  FROM procrastinate_jobs AS job WHERE queue_name <> 'housekeeping'
"""


@dataclass
class Site:
    """A database, its workers, and where their effects are."""

    postgres: PostgresServer
    workers: list[Process]
    effects: Path
    resets: Counter[int]

    def ask(self, statement: str, *arguments: Any) -> list[Any]:
        with psycopg.connect(self.postgres.url, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode(), arguments or None)
            return cursor.fetchall() if cursor.description else []

    def defer(self) -> int:
        """Defer a batch, all or nothing; return how many there are now."""
        with psycopg.connect(self.postgres.url, connect_timeout=5) as connection:
            for task, number in BATCH.items():
                queue = "quick" if task in ("quick", "threaded") else "slow"
                connection.execute(DEFER.encode(), [queue, task, task, number])
        return sum(BATCH.values())


@pytest.fixture
def site(tmp_path: Path, redis_url: str) -> Iterator[Site]:
    with PostgresServer(tmp_path / "postgres jobs") as postgres:
        migrate_jobs(postgres.url, lambda _: None)
        effects = tmp_path / "effects"
        effects.touch()
        environment = {
            "JOB_QUEUE_DATABASE_URL": postgres.url,
            "REDIS_URL": redis_url,
            "JOB_QUEUE_PACKAGES": "storm_tasks",
            "JOB_QUEUE_STALLED_AFTER_MS": str(SILENCE_MS),
            "EFFECTS": str(effects),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        }
        workers = [Process("jobs_worker", environment, tmp_path / f"worker-{number}.log") for number in range(3)]
        try:
            yield Site(postgres, [worker.ready(60) for worker in workers], effects, Counter())
        finally:
            for worker in workers:
                worker.end()


@pytest.mark.timeout(300 + SECONDS * 4)
def test_every_job_ends_and_every_run_is_accounted_for(site: Site) -> None:
    chance = random.Random(SEED)
    print(f"STORM_SEED={SEED}")  # noqa: T201  shown when it fails
    deferred, ends = 0, time.monotonic() + SECONDS
    while time.monotonic() < ends:
        # A database that is just being restarted takes no jobs; then there is one batch less.
        with suppress(psycopg.Error):
            deferred += site.defer()
        chance.choice([kill, kill, freeze, restart_postgres, end_connections, reset, nothing])(site, chance)
        time.sleep(chance.uniform(0.1, 0.6))  # what is done to them shall not come in step with them
    for worker in site.workers:
        assert worker.popen.poll() is None, f"a worker ended by itself:\n{worker.log.read_text()[-3000:]}"
    wait_for(lambda: not site.ask(UNFINISHED)[0][0], 120, "every job's end")
    check(site, deferred)


def check(site: Site, deferred: int) -> None:
    runs = Counter(int(line) for line in site.effects.read_text().split())
    rows = site.ask(TOLD)
    assert len(rows) == deferred
    for job, task, status, attempts, started, errors, stalls, again in rows:
        told = f"job {job} {task} {status}: {attempts} attempts, {started} started, {errors} errors, {runs[job]} runs"
        gave_up = status == "failed"
        assert status == "succeeded" or task == "hopeless" or stalls >= 3, told
        assert attempts == errors + (not gave_up), told
        # Each time it was begun ended in an error, in success, or was taken away by hand.
        assert started == errors + (not gave_up) + site.resets[job], told
        assert again == started - 1, told
        # A worker may die between the claim and the run, but none runs a job that it has not claimed.
        assert runs[job] <= started, told
        assert runs[job] >= started - stalls - site.resets[job], told
        if task == "hopeless" and stalls < 3:
            assert errors == 4, told
    assert any(job[6] for job in rows) or SECONDS < 60, "nobody ever stalled: the storm was none"


def kill(site: Site, chance: random.Random) -> None:
    worker = chance.choice(site.workers)
    worker.kill()
    worker.restart()


def freeze(site: Site, chance: random.Random) -> None:
    """For longer than its silence is tolerated: its jobs are others' when it wakes up."""
    worker = chance.choice(site.workers)
    worker.popen.send_signal(signal.SIGSTOP)
    time.sleep(SILENCE_MS / 1000 + 1.5)  # that is the fault
    worker.popen.send_signal(signal.SIGCONT)


def restart_postgres(site: Site, chance: random.Random) -> None:
    if chance.random() < 0.5:
        site.postgres.kill()
    else:
        site.postgres.stop()
    site.postgres.start()


def end_connections(site: Site, _: random.Random) -> None:
    with suppress(psycopg.Error):
        site.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


def reset(site: Site, _: random.Random) -> None:
    with suppress(psycopg.Error):
        site.resets.update(row[0] for row in site.ask(RESET))


def nothing(_: Site, __: random.Random) -> None:
    """Let them work."""
