"""`intelliflow doctor` looks at the jobs database, too: what it finds, and that what it advises helps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jobs_rows import desk, jobs

if TYPE_CHECKING:
    from command_line import Operator
    from jobs_rows import Jobs

__all__ = ["desk", "jobs"]


def attention(desk: Operator) -> dict[str, Any]:
    said = desk.run("doctor -o json")
    found = {row["check"]: row for row in said.rows if row["status"] == "attention"}
    assert said.code == (4 if found else 0)
    assert all(row["remedy"] for row in found.values())
    return found


def test_a_queue_that_is_worked_needs_nothing(desk: Operator, jobs: Jobs) -> None:
    live = jobs.worker()
    jobs.doing(live)
    jobs.todo()
    jobs.failed()
    jobs.database.execute(
        "UPDATE procrastinate_jobs SET scheduled_at = now() + interval '1 day' WHERE id = %s", [jobs.todo()]
    )
    assert attention(desk) == {}


def test_without_a_worker_nothing_is_worked(desk: Operator, jobs: Jobs) -> None:
    jobs.worker(silent=61)
    found = attention(desk)
    assert set(found) == {"job workers"}
    assert found["job workers"]["found"] == "0 alive, 1 silent"
    assert "start a jobs-worker" in found["job workers"]["remedy"]


def test_a_job_that_has_lost_its_worker_is_found_and_given_back_as_advised(desk: Operator, jobs: Jobs) -> None:
    jobs.worker()
    job = jobs.doing(jobs.worker(silent=90))
    found = attention(desk)
    assert set(found) == {"stalled jobs"}
    assert f"intelliflow jobs show {job}" in found["stalled jobs"]["remedy"]
    assert desk.run(f"jobs retry {job}").code == 0
    assert attention(desk) == {}


def test_an_attempt_that_takes_very_long_is_found(desk: Operator, jobs: Jobs) -> None:
    job = jobs.doing(jobs.worker(), age="16 minutes")
    found = attention(desk)
    assert set(found) == {"long jobs"}
    assert f"intelliflow jobs cancel {job}" in found["long jobs"]["remedy"]


@pytest.mark.parametrize("sign", ["doing", "succeeded", None])
def test_jobs_that_wait_for_long_are_found_and_whether_their_queue_is_worked(
    desk: Operator, jobs: Jobs, sign: str | None
) -> None:
    live = jobs.worker()
    jobs.aged(jobs.todo("sms"), "6 minutes")
    if sign == "doing":
        jobs.doing(live, queue="sms")
    elif sign:
        jobs.ended(sign, queue="sms")
    found = attention(desk)
    if sign:
        assert set(found) == {"waiting jobs"}
        assert "1 of sms, the oldest for 36" in found["waiting jobs"]["found"]
    else:
        assert set(found) == {"job queues"}
        assert "JOB_QUEUE_NAMES hold sms" in found["job queues"]["remedy"]


def test_failures_that_grow_are_found(desk: Operator, jobs: Jobs) -> None:
    jobs.worker()
    for _ in range(12):
        jobs.failed()
    found = attention(desk)
    assert set(found) == {"failed jobs"}
    assert found["failed jobs"]["found"] == "12 failed in the last hour, 0 in the day before it"
    assert desk.run("jobs failed --since 1h --group").code == 0
    # As many as every hour: it is no news.
    jobs.database.execute(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, status, finished_at)"
        " SELECT 'email', 'send', 'failed', now() - interval '2 hours' FROM generate_series(1, 288)"
    )
    assert attention(desk) == {}


def test_a_schema_that_is_missing_or_old_names_the_script(desk: Operator, jobs: Jobs) -> None:
    jobs.database.execute("DELETE FROM _yoyo_migration WHERE migration_id = '0002.jobs'")
    found = attention(desk)
    assert set(found) == {"jobs schema"}
    assert found["jobs schema"]["remedy"] == "`./scripts/jobs/apply-schema.sh`"
    jobs.worker()
    assert desk.run("jobs migrate").code == 0
    assert attention(desk) == {}


def test_a_database_that_does_not_answer_is_a_finding(
    desk: Operator, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_QUEUE_DATABASE_URL", "postgresql://u:secret@127.0.0.1:1/jobs")
    monkeypatch.setenv("DATABASE_URL", database_url)
    found = attention(desk)
    assert "docker compose restart postgres-jobs" in found["jobs database"]["remedy"]
    assert "127.0.0.1:1" in found["jobs database"]["found"]
    assert "secret" not in str(found)
    # And the other database is looked at all the same.
    assert "partitions" in found


def test_without_any_database_there_is_nothing_to_look_at(desk: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOB_QUEUE_DATABASE_URL")
    assert desk.run("doctor").code == 1
