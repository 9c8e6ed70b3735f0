"""`intelliflow jobs retry-all` and `purge`: what they change, what they leave, and who has to say it twice."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from jobs_rows import Jobs, desk, jobs
from worker_ops.exit_codes import ExitCode
from worker_ops.jobs import changing_store, purging
from worker_ops.jobs.schema import migrate_jobs

if TYPE_CHECKING:
    from command_line import Operator
    from embedded_stack import PostgresServer

__all__ = ["desk", "jobs"]

ROOT = Path(__file__).parents[2]
MANY = """
INSERT INTO procrastinate_jobs (queue_name, task_name, priority, status, created_at, finished_at)
SELECT 'email', 'send', n %% 3, %s::procrastinate_job_status, now() - %s::interval, now() - %s::interval
  FROM generate_series(1, %s) AS n
"""


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of 500 holds what tests have: several are needed to see that each is looked at once."""
    statement = changing_store.RETRY_PAGE.replace(f"LIMIT {changing_store.CHUNK}", "LIMIT 7")
    assert statement != changing_store.RETRY_PAGE
    monkeypatch.setattr(changing_store, "RETRY_PAGE", statement)
    monkeypatch.setattr(purging, "CHUNK", 7)
    monkeypatch.setattr(changing_store, "COUNT", changing_store.COUNT.replace(str(changing_store.STRETCH), "5"))


def many(jobs: Jobs, count: int, status: str, age: str = "1 h") -> None:
    jobs.database.execute(MANY, [status, age, age, count])


@pytest.mark.usefixtures("small_chunks")
def test_all_failed_jobs_are_retried_once_with_their_priorities(desk: Operator, jobs: Jobs) -> None:
    many(jobs, 50, "failed")
    live = jobs.doing(jobs.worker())
    done = jobs.ended("succeeded")
    before = jobs.value("SELECT array_agg(priority ORDER BY id) FROM procrastinate_jobs")
    said = desk.run("jobs retry-all -o json")
    assert (said.code, said.rows) == (ExitCode.OK, [{"matched": 50, "retried": 50, "left": 0}])
    assert jobs.count("status = 'todo' AND attempts = 0") == 50
    assert jobs.value("SELECT array_agg(priority ORDER BY id) FROM procrastinate_jobs") == before
    assert jobs.value("SELECT count(*) FROM procrastinate_events WHERE type = 'retried'") == 50
    assert (jobs.of(live), jobs.of(done)) == ("doing", "succeeded")
    assert desk.json("jobs retry-all") == [{"matched": 0, "retried": 0, "left": 0}]


def test_a_queue_a_task_an_error_and_a_time_choose_what_is_retried(desk: Operator, jobs: Jobs) -> None:
    mail, text = jobs.failed(), jobs.failed("TimeoutError: slow", queue="sms", task="text")
    old = jobs.failed("TimeoutError: slow", queue="sms", task="text", age="3 hours")
    assert desk.json("jobs retry-all sms --since 2h --error timeout --task text")[0]["retried"] == 1
    assert [jobs.of(job) for job in (mail, text, old)] == ["failed", "todo", "failed"]
    assert desk.json("jobs retry-all --queue sms")[0]["retried"] == 1
    assert desk.run("jobs retry-all sms --queue sms").code == ExitCode.USAGE
    assert jobs.of(mail) == "failed"


@pytest.mark.usefixtures("small_chunks")
def test_of_jobs_with_one_queueing_lock_one_waits(desk: Operator, jobs: Jobs) -> None:
    nightly = [jobs.failed(queueing_lock="nightly") for _ in range(20)]
    hourly = jobs.failed(queueing_lock="hourly")
    jobs.todo(queueing_lock="hourly")
    said = desk.run("jobs retry-all -o json")
    assert (said.code, said.rows) == (ExitCode.PARTIAL, [{"matched": 21, "retried": 1, "left": 20}])
    assert "queueing lock" in said.err
    assert [jobs.of(job) for job in nightly] == ["todo"] + ["failed"] * 19
    assert jobs.of(hourly) == "failed"


@pytest.mark.usefixtures("small_chunks")
def test_what_ended_long_ago_is_purged_and_nothing_else(desk: Operator, jobs: Jobs) -> None:
    for status in ("succeeded", "cancelled", "aborted", "failed"):
        many(jobs, 20, status, "31 days")
        many(jobs, 3, status, "29 days")
    waiting, working = jobs.todo(), jobs.doing(jobs.worker())
    for job in (waiting, working):
        jobs.aged(job, "400 days")
    rows = desk.json("jobs purge 30")
    assert {row["status"]: row["deleted"] for row in rows} == {"succeeded": 20, "cancelled": 20, "aborted": 20}
    assert jobs.count("status IN ('succeeded', 'cancelled', 'aborted')") == 9
    assert (jobs.count("status = 'failed'"), jobs.of(waiting), jobs.of(working)) == (23, "todo", "doing")
    assert desk.json("jobs purge 30 --include-failed")[3] == {"status": "failed", "deleted": 20}
    assert jobs.count("status = 'failed'") == 3
    assert (
        jobs.value(
            "SELECT count(*) FROM procrastinate_events WHERE NOT EXISTS"
            " (SELECT FROM procrastinate_jobs AS job WHERE job.id = job_id)"
        )
        == 0
    )


def test_a_job_of_the_clock_is_purged_too(desk: Operator, jobs: Jobs) -> None:
    job = jobs.ended("succeeded", age="31 days")
    jobs.database.execute(
        "INSERT INTO procrastinate_periodic_defers (task_name, defer_timestamp, job_id) VALUES ('send', 1, %s)", [job]
    )
    assert desk.json("jobs purge 30")[0]["deleted"] == 1
    assert jobs.value("SELECT job_id FROM procrastinate_periodic_defers") is None


@pytest.mark.parametrize("days", ["0", "-1", "x", "", "36501", "1.5"])
def test_days_are_a_number_of_days(desk: Operator, days: str) -> None:
    assert desk.run("jobs purge", days).code == ExitCode.USAGE


def test_a_dry_run_only_counts(desk: Operator, jobs: Jobs) -> None:
    many(jobs, 5, "failed", "31 days")
    said = desk.run("jobs purge 30 --include-failed --dry-run -o json")
    assert said.code == ExitCode.OK
    assert said.rows[3] == {"status": "failed", "jobs": 5}
    assert "would delete 5 jobs" in said.err
    said = desk.run("jobs retry-all --dry-run -o json")
    assert [(row["queue"], row["count"]) for row in said.rows] == [("email", 5)]
    assert "would retry 5 jobs" in said.err
    assert jobs.count("status = 'failed'") == 5


def test_chunks_follow_the_time_they_take() -> None:
    assert purging.next_chunk(500, 0.01) == 500
    assert purging.next_chunk(500, 0.2) == 250
    assert purging.next_chunk(12, 0.2) == 10
    assert purging.next_chunk(250, 0.01) == 500


def at_a_terminal(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a person does: standard input is a terminal."""
    person, terminal = pty.openpty()
    try:
        return subprocess.run(
            [str(ROOT / "scripts" / "jobs" / arguments[0]), *arguments[1:]],
            stdin=terminal,
            env={"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "JOB_QUEUE_DATABASE_URL": url},
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(person)
        os.close(terminal)


def test_a_person_at_a_terminal_is_shown_first_and_says_it_twice(jobs: Jobs, jobs_database_url: str) -> None:
    many(jobs, 5, "failed", "31 days")
    retry = at_a_terminal(jobs_database_url, "retry-all-failed.sh", "email")
    assert retry.returncode == ExitCode.REFUSED
    assert "email" in retry.stdout
    assert "this would retry 5 jobs; do it with --apply" in retry.stderr
    purge = at_a_terminal(jobs_database_url, "purge-old.sh", "30", "--include-failed")
    assert purge.returncode == ExitCode.REFUSED
    assert "this would delete 5 jobs that ended more than 30 days ago" in purge.stderr
    assert jobs.count("status = 'failed'") == 5
    assert at_a_terminal(jobs_database_url, "retry-all-failed.sh", "email", "--apply").returncode == 0
    assert jobs.count("status = 'todo'") == 5
    assert at_a_terminal(jobs_database_url, "purge-old.sh", "30", "--yes").returncode == 0


def test_many_are_purged_by_short_statements_each_of_a_chunk(
    own_postgres: PostgresServer, desk: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `./dev bench jobs_purge` does it with a million and says how long the longest statement took.
    url = own_postgres.create_database("jobs")
    migrate_jobs(url, lambda _: None)
    with psycopg.connect(url, autocommit=True) as database:
        many(Jobs(database), 5_000, "succeeded", "31 days")
        database.execute("ALTER DATABASE jobs SET log_min_duration_statement = 0")
    monkeypatch.setenv("JOB_QUEUE_DATABASE_URL", url)
    assert desk.json("jobs purge 30")[0]["deleted"] == 5_000
    statements = re.findall(r"duration: ([0-9.]+) ms  execute [^\n]*\n\tWITH chosen", own_postgres.log.read_text())
    # And one for each of three statuses, of which none is left.
    assert len(statements) == 5_000 // changing_store.CHUNK + 3
    # Usually forty milliseconds; this machine may be busy.
    assert max(map(float, statements)) < 2_000
