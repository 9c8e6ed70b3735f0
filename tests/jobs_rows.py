"""Jobs as tests want them, and `intelliflow jobs` at a desk with the database beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import structlog
from psycopg.types.json import Jsonb

from command_line import Operator

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFER = """
INSERT INTO procrastinate_jobs (queue_name, task_name, args, priority, queueing_lock, lock)
VALUES (%(queue)s, %(task)s, %(args)s, %(priority)s, %(queueing_lock)s, %(lock)s) RETURNING id
"""
BEGIN = "UPDATE procrastinate_jobs SET status = 'doing', worker_id = %s WHERE id = %s"
ENDED = "UPDATE procrastinate_jobs SET status = %s, attempts = attempts + 1 WHERE id = %s"
ERROR = """
INSERT INTO procrastinate_events (job_id, type, error, error_traceback, attempt) VALUES (%s, 'error', %s, %s, %s)
"""
AGED = """
UPDATE procrastinate_jobs
   SET created_at = created_at - %(age)s::interval, started_at = started_at - %(age)s::interval,
       finished_at = finished_at - %(age)s::interval
 WHERE id = %(id)s
"""


class Jobs:
    """Writes jobs as Procrastinate and its workers do."""

    def __init__(self, database: psycopg.Connection[Any]) -> None:
        self.database = database

    def value(self, statement: str, *arguments: object) -> Any:
        row = self.database.execute(statement.encode(), arguments).fetchone()
        assert row
        return row[0]

    def of(self, job: int, column: str = "status") -> Any:
        return self.value(f"SELECT {column} FROM procrastinate_jobs WHERE id = %s", job)

    def count(self, condition: str = "true") -> int:
        return int(self.value(f"SELECT count(*) FROM procrastinate_jobs WHERE {condition}"))

    def todo(
        self,
        queue: str = "email",
        task: str = "send",
        *,
        args: Any = None,
        priority: int = 0,
        queueing_lock: str | None = None,
        lock: str | None = None,
    ) -> int:
        row = self.database.execute(
            DEFER,
            {
                "queue": queue,
                "task": task,
                "args": Jsonb(args or {}),
                "priority": priority,
                "queueing_lock": queueing_lock,
                "lock": lock,
            },
        ).fetchone()
        assert row
        return int(row[0])

    def worker(self, silent: float = 0.0) -> int:
        """Register one that was last heard of so many seconds ago."""
        return int(
            self.value(
                "INSERT INTO procrastinate_workers (last_heartbeat)"
                " VALUES (clock_timestamp() - make_interval(secs => %s)) RETURNING id",
                silent,
            )
        )

    def doing(self, worker: int | None = None, age: str = "0", **columns: Any) -> int:
        job = self.todo(**columns)
        self.database.execute(BEGIN, [worker, job])
        self.aged(job, age)
        return job

    def ended(self, status: str = "succeeded", age: str = "0", **columns: Any) -> int:
        job = self.doing(**columns)
        self.database.execute(ENDED, [status, job])
        self.aged(job, age)
        return job

    def failed(self, error: str = "ConnectionError: no route", age: str = "0", **columns: Any) -> int:
        job = self.doing(**columns)
        self.database.execute(ERROR, [job, error, f"Traceback (most recent call last):\n{error}", 1])
        self.database.execute(ENDED, ["failed", job])
        self.aged(job, age)
        return job

    def aged(self, job: int, age: str) -> None:
        """Make it so much older."""
        self.database.execute(AGED, {"id": job, "age": age})


@pytest.fixture
def jobs(jobs_database_url: str) -> Iterator[Jobs]:
    """A jobs database of the test's own."""
    with psycopg.connect(jobs_database_url, autocommit=True) as database:
        yield Jobs(database)


@pytest.fixture
def desk(
    jobs: Jobs, jobs_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Operator]:
    """Somebody who has nothing but the jobs database."""
    monkeypatch.setenv("JOB_QUEUE_DATABASE_URL", jobs_database_url)
    before = structlog.get_config()
    yield Operator(jobs.database, capsys)
    structlog.configure(**before)
