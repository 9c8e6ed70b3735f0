"""`intelliflow jobs`: what an operator sees of the jobs, and what becomes of one that is retried or cancelled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from jobs_rows import desk, jobs
from jobs_worker.settings import JobsSettings
from worker_ops.exit_codes import ExitCode
from worker_ops.jobs.opened import JobsOperatorSettings

if TYPE_CHECKING:
    from command_line import Operator
    from jobs_rows import Jobs

__all__ = ["desk", "jobs"]

ADA = "ada@example.com"


def test_without_a_database_the_variable_and_an_example_are_named(
    desk: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOB_QUEUE_DATABASE_URL")
    for line in ("stats", "failed", "show 1", "retry 1", "retry-all", "purge 30", "cancel 1", "migrate", "workers"):
        said = desk.run(f"jobs {line}")
        assert (said.code, said.out) == (ExitCode.FAILED, ""), line
        assert "JOB_QUEUE_DATABASE_URL is not set" in said.err
        assert "postgresql://postgres:postgres@localhost:5433/jobs" in said.err


def test_a_database_that_does_not_answer_is_unreachable(desk: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_QUEUE_DATABASE_URL", "postgresql://u:secret@127.0.0.1:1/jobs")
    for line in ("stats", "migrate", "show 1"):
        said = desk.run(f"jobs {line}")
        assert said.code == ExitCode.UNREACHABLE
        assert "secret" not in said.err


def test_a_database_without_the_schema_says_what_helps(desk: Operator, jobs: Jobs) -> None:
    jobs.database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA jobs_ops CASCADE")
    said = desk.run("jobs stats")
    assert said.code == ExitCode.FAILED
    assert "./scripts/jobs/apply-schema.sh" in said.err
    assert desk.run("jobs migrate").code == ExitCode.OK
    assert desk.run("jobs stats").code == ExitCode.OK


def test_the_silence_of_a_worker_is_the_worker_s_own() -> None:
    name = "job_queue_stalled_after_ms"
    ours, theirs = JobsOperatorSettings.model_fields[name], JobsSettings.model_fields[name]
    assert (ours.default, ours.metadata) == (theirs.default, theirs.metadata)


def test_stats_count_every_queue_by_what_became_of_its_jobs(desk: Operator, jobs: Jobs) -> None:
    live, gone = jobs.worker(), jobs.worker(silent=61)
    old = jobs.todo()
    jobs.aged(old, "90 seconds")
    jobs.database.execute(
        "UPDATE procrastinate_jobs SET scheduled_at = now() + interval '1 h' WHERE id = %s", [jobs.todo()]
    )
    jobs.doing(live, age="6 minutes")
    jobs.doing(gone)
    jobs.doing(None)
    for status in ("succeeded", "succeeded", "failed", "aborted"):
        jobs.ended(status)
    jobs.ended("failed", age="2 hours")
    jobs.ended("succeeded", age="2 hours")
    desk.run(f"jobs cancel {jobs.todo()}")
    jobs.todo("sms")

    email, sms = desk.json("jobs stats")

    age = email.pop("oldestWaitingAgeMs")
    assert 90_000 <= age < 150_000
    assert email.pop("averageMs") >= 0
    assert email == {
        "queue": "email",
        "todo": 1,
        "scheduled": 1,
        "doing": 3,
        "doingOver5Min": 1,
        "stalled": 2,
        "succeeded": 3,
        "failed": 2,
        "cancelled": 1,
        "aborted": 1,
        "succeededLastHour": 2,
        "failedLastHour": 1,
    }
    assert (sms["queue"], sms["todo"], sms["doing"]) == ("sms", 1, 0)
    assert [row["task"] for row in desk.json("jobs stats --by task")] == ["send"]


def test_stats_say_when_nobody_works(desk: Operator, jobs: Jobs) -> None:
    jobs.worker(silent=61)
    assert "no worker is alive" in desk.run("jobs stats").err
    assert [row["alive"] for row in desk.json("jobs workers")] == [False]
    live = jobs.worker()
    jobs.doing(live)
    assert desk.run("jobs stats").err == ""
    assert [(row["workerId"], row["alive"], row["doing"]) for row in desk.json("jobs workers")][1:] == [(live, True, 1)]


def test_failures_are_listed_the_latest_first_and_by_what_they_are(desk: Operator, jobs: Jobs) -> None:
    old = jobs.failed(f"SMTPError: {ADA} refused\nand more", age="3 hours")
    new = jobs.failed("TimeoutError: slow", queue="sms", task="text")
    jobs.ended("succeeded")

    rows = desk.json("jobs failed")
    assert [(row["jobId"], row["queue"], row["task"], row["attempts"]) for row in rows] == [
        (new, "sms", "text", 1),
        (old, "email", "send", 1),
    ]
    assert rows[1]["error"] == "SMTPError: ***@example.com refused\nand more"

    def found(line: str) -> list[int]:
        return [row["jobId"] for row in desk.json(f"jobs failed {line}")]

    assert found("--queue sms") == found("--task text") == found("--error timeout") == found("--since 2h") == [new]
    assert found("--queue none") == []
    limited = desk.run("jobs failed --limit 1 -o ndjson")
    assert [json.loads(line)["jobId"] for line in limited.out.splitlines()] == [new]
    assert "there are more" in limited.err
    groups = desk.json("jobs failed --group")
    assert {(row["queue"], row["error"], row["count"]) for row in groups} == {
        ("sms", "TimeoutError", 1),
        ("email", "SMTPError", 1),
    }
    table = desk.run("jobs failed").out
    assert "refused" in table
    assert "and more" not in table


def test_a_job_is_shown_with_every_attempt_and_without_the_person(desk: Operator, jobs: Jobs) -> None:
    job = jobs.failed(f"SMTPError: {ADA} refused", args={"to": ADA, "password": "hunter2", "order": {"id": 7}})
    shown = desk.json(f"jobs show {job}")
    assert (shown["status"], shown["queue"], shown["attempts"]) == ("failed", "email", 1)
    assert shown["args"] == {"to": "***@example.com", "password": "***", "order": {"id": 7}}
    assert shown["error"] == "SMTPError: ***@example.com refused"
    assert shown["created"] <= shown["started"] <= shown["finished"]
    assert [event["type"] for event in shown["events"]] == ["deferred", "started", "error", "failed"]
    assert shown["events"][2]["attempt"] == 1
    assert shown["events"][2]["errorTraceback"].startswith("Traceback")
    table = desk.run(f"jobs show {job}").out
    assert "error of attempt 1: SMTPError: ***@example.com refused" in table
    assert "    Traceback (most recent call last):" in table
    assert ADA not in table
    assert desk.json(f"jobs show {job} --reveal")["args"]["to"] == ADA
    assert ADA in desk.run(f"jobs show {job} --reveal").out


def test_a_job_of_thousands_of_events_is_shown_with_the_latest(desk: Operator, jobs: Jobs) -> None:
    job = jobs.todo()
    jobs.database.execute(
        "INSERT INTO procrastinate_events (job_id, type, error, attempt)"
        " SELECT %s, 'error', 'E: ' || n, n FROM generate_series(1, 300) AS n",
        [job],
    )
    said = desk.run(f"jobs show {job} -o json")
    assert [event["attempt"] for event in said.rows["events"]] == list(range(101, 301))
    assert said.rows["error"] == "E: 300"
    assert "there are more" in said.err


@pytest.mark.parametrize("verb", ["show", "retry", "cancel"])
def test_a_job_that_is_not_there_and_one_that_is_no_number(desk: Operator, verb: str) -> None:
    assert desk.run(f"jobs {verb} 4711").code == ExitCode.NOT_FOUND
    for nonsense in ("x", "0", "-1", "9" * 20, ""):
        assert desk.run("jobs", verb, nonsense).code == ExitCode.USAGE


@pytest.mark.parametrize("status", ["failed", "aborted"])
def test_what_is_over_is_retried_with_all_its_attempts(desk: Operator, jobs: Jobs, status: str) -> None:
    job = jobs.ended(status, priority=7)
    jobs.database.execute("UPDATE procrastinate_jobs SET attempts = 5, scheduled_at = now() WHERE id = %s", [job])
    assert desk.json(f"jobs retry {job}") == {"jobId": job, "was": status, "status": "todo"}
    assert jobs.of(job, "(status, attempts, stalls, priority, scheduled_at, started_at, finished_at)::text") == (
        "(todo,0,0,7,,,)"
    )
    assert desk.json(f"jobs show {job}")["events"][-1]["type"] == "retried"


def test_a_cancelled_job_is_retried(desk: Operator, jobs: Jobs) -> None:
    job = jobs.todo()
    assert desk.json(f"jobs cancel {job}")["status"] == "cancelled"
    assert desk.json(f"jobs retry {job}")["was"] == "cancelled"
    assert jobs.of(job) == "todo"


def test_a_job_in_the_hands_of_a_worker_that_lives_is_not_retried(desk: Operator, jobs: Jobs) -> None:
    job = jobs.doing(jobs.worker(silent=5))
    for line in (f"jobs retry {job}", f"jobs retry {job} --force"):
        said = desk.run(line)
        assert (said.code, said.out) == (ExitCode.REFUSED, "")
        assert "is at work for 0 s" in said.err
        assert "5 s ago" in said.err
        assert f"intelliflow jobs cancel {job}" in said.err
    assert jobs.of(job) == "doing"


def test_a_job_whose_worker_is_silent_is_retried_and_taken_from_it(desk: Operator, jobs: Jobs) -> None:
    silent = jobs.worker(silent=61)
    asked = jobs.doing(silent)
    assert desk.run(f"jobs cancel {asked}").code == ExitCode.OK
    for job in (jobs.doing(silent), jobs.doing(None), asked):
        assert desk.json(f"jobs retry {job}")["was"] == "doing"
        assert jobs.of(job, "(status, worker_id, started_at)::text") == "(todo,,)"


def test_a_success_is_repeated_only_by_force(desk: Operator, jobs: Jobs) -> None:
    job = jobs.ended("succeeded")
    said = desk.run(f"jobs retry {job}")
    assert said.code == ExitCode.REFUSED
    assert "--force" in said.err
    assert jobs.of(job) == "succeeded"
    assert desk.json(f"jobs retry {job} --force")["was"] == "succeeded"
    assert desk.run(f"jobs retry {job}").code == ExitCode.REFUSED


def test_a_retry_beside_one_that_waits_under_the_same_lock_is_refused(desk: Operator, jobs: Jobs) -> None:
    job = jobs.failed(queueing_lock="nightly")
    jobs.todo(queueing_lock="nightly")
    said = desk.run(f"jobs retry {job}")
    assert said.code == ExitCode.REFUSED
    assert "queueing lock nightly" in said.err
    assert jobs.of(job) == "failed"


def test_cancelling_is_for_what_is_not_over(desk: Operator, jobs: Jobs) -> None:
    job = jobs.doing(jobs.worker())
    said = desk.run(f"jobs cancel {job} -o json")
    assert said.rows == {"jobId": job, "status": "doing", "abortRequested": True}
    assert "within seconds" in said.err
    assert jobs.of(job, "abort_requested")
    over = desk.run(f"jobs cancel {jobs.ended('succeeded')}")
    assert over.code == ExitCode.REFUSED
    assert "it is succeeded" in over.err
