"""The job queue's runbook, word for word: every statement says what it promises, every script line works."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import seed_jobs
from jobs_harness import desk as app_desk
from jobs_harness import engine
from jobs_rows import jobs
from seed_sql import statements
from worker_ops.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from jobs_harness import Desk
    from jobs_rows import Jobs

__all__ = ["jobs"]

ROOT = Path(__file__).parents[2]


def rows(jobs: Jobs, statement: str) -> list[tuple[Any, ...]]:
    return jobs.database.execute(statement.encode()).fetchall()


def run(jobs: Jobs, statement: str) -> int:
    return jobs.database.execute(statement.encode()).rowcount


def stuck(jobs: Jobs, statement: str) -> None:
    late = jobs.doing(age="6 minutes")
    jobs.doing(age="4 minutes")
    jobs.ended("succeeded", age="6 minutes")
    jobs.aged(jobs.todo(), "6 minutes")
    assert [row[0] for row in rows(jobs, statement)] == [late]


def errors(jobs: Jobs, statement: str) -> None:
    for error in ("ConnectionError: no route", "ConnectionError: no route", "TimeoutError: slow"):
        jobs.failed(error)
    old = jobs.failed()
    jobs.database.execute("UPDATE procrastinate_events SET at = at - interval '61 minutes' WHERE job_id = %s", [old])
    assert sorted(rows(jobs, statement)) == [
        ("send", "ConnectionError: no route", 2),
        ("send", "TimeoutError: slow", 1),
    ]


def failed_lately(jobs: Jobs, statement: str) -> None:
    jobs.failed()
    jobs.failed(age="59 minutes")
    jobs.failed(age="61 minutes")
    jobs.ended("succeeded")
    assert rows(jobs, statement) == [(2,)]


def depth(jobs: Jobs, statement: str) -> None:
    for queue in ("email", "email", "sms"):
        jobs.todo(queue)
    jobs.doing()
    assert sorted(rows(jobs, statement)) == [("email", 2), ("sms", 1)]


def rate(jobs: Jobs, statement: str) -> None:
    jobs.ended("succeeded")
    jobs.ended("succeeded", age="59 minutes")
    jobs.ended("succeeded", age="61 minutes")
    jobs.failed()
    assert rows(jobs, statement) == [(2,)]


def average(jobs: Jobs, statement: str) -> None:
    for seconds in (1, 3):
        job = jobs.ended("succeeded")
        jobs.database.execute(
            "UPDATE procrastinate_jobs SET started_at = finished_at - make_interval(secs => %s) WHERE id = %s",
            [seconds, job],
        )
    jobs.failed(task="other")
    ((task, seconds),) = rows(jobs, statement)
    found: Decimal = seconds
    assert (task, float(found)) == ("send", 2.0)


def clear(jobs: Jobs, statement: str) -> None:
    for _ in range(3):
        jobs.todo()
    kept = [jobs.doing(), jobs.failed(), jobs.ended("succeeded")]
    assert run(jobs, statement) == 3
    assert [row[0] for row in rows(jobs, "SELECT id FROM procrastinate_jobs ORDER BY id")] == kept


def reset(jobs: Jobs, statement: str) -> None:
    job, other, over = jobs.doing(jobs.worker()), jobs.doing(), jobs.ended("succeeded")
    assert run(jobs, statement.replace("<job_id>", str(job))) == 1
    assert jobs.of(job, "(status, started_at, worker_id)::text") == "(todo,,)"
    assert jobs.of(other) == "doing"
    assert run(jobs, statement.replace("<job_id>", str(over))) == 0


def reset_all(jobs: Jobs, statement: str) -> None:
    old = [jobs.doing(age="11 minutes") for _ in range(3)]
    young = jobs.doing(age="9 minutes")
    assert run(jobs, statement) == 3
    assert [jobs.of(job) for job in (*old, young)] == ["todo"] * 3 + ["doing"]


# In the order of the runbook; `strict` below counts them.
PROMISES: list[Callable[[Jobs, str], None]] = [
    *(stuck, errors),
    *(failed_lately, depth, rate, average),
    clear,
    reset,
    reset_all,
]
STATEMENTS = [statement for block in seed_jobs.SQL for statement in statements(block)]


def test_no_statement_is_left_out() -> None:
    assert len(STATEMENTS) == len(PROMISES) == 9
    text = "".join(seed_jobs.SQL)
    assert sum(text.count(word) for word in ("\nSELECT", "\nDELETE", "\nUPDATE")) == len(STATEMENTS)
    assert len(seed_jobs.lines()) == 10


@pytest.mark.parametrize(
    ("statement", "promise"),
    [pytest.param(*both, id=both[1].__name__) for both in zip(STATEMENTS, PROMISES, strict=True)],
)
def test_a_statement_does_what_the_runbook_says(
    jobs: Jobs, statement: str, promise: Callable[[Jobs, str], None]
) -> None:
    promise(jobs, statement)


async def test_a_job_that_is_reset_under_its_worker_runs_again_and_the_first_cannot_end_it(
    jobs: Jobs, jobs_database_url: str
) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()
    runs: list[int] = []
    (statement,) = statements(seed_jobs.RESET)
    async with app_desk(jobs_database_url) as at:

        @at.app.task(name="hold")
        async def hold() -> None:
            runs.append(1)
            began.set()
            if len(runs) == 1:
                await may_end.wait()

        async with engine(at) as one:
            job = await hold.defer_async()
            await began.wait()
            await at.rows(statement.replace("<job_id>", str(job)))
            row = await at.until(job, "succeeded")
            may_end.set()
            await settled(one, at, row)
        assert len(runs) == 2


async def settled(one: Any, at: Desk, row: Any) -> None:
    """The first attempt has ended, and has changed nothing."""
    async with asyncio.timeout(20):
        while one.jobs._at_work:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.02)
    assert dict(await at.job(row["id"])) == dict(row)


@pytest.fixture
def job_123(jobs: Jobs) -> int:
    jobs.database.execute("SELECT setval('procrastinate_jobs_id_seq', 122)")
    return jobs.failed("ConnectionError: no route")


def shell(line: str, url: str | None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if url is not None:
        environment["JOB_QUEUE_DATABASE_URL"] = url
    return subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.needs("bash", "psql")
def test_every_line_of_the_runbook_works_in_its_order(jobs: Jobs, jobs_database_url: str, job_123: int) -> None:
    assert job_123 == 123
    text, old = jobs.failed(queue="sms"), jobs.ended("succeeded", age="31 days")
    buried = jobs.failed(queue="sms", age="91 days")
    seen: dict[str, str] = {}
    for line in seed_jobs.lines():
        done = shell(line, jobs_database_url)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        seen[line] = done.stdout
        match line:
            case "./scripts/jobs/retry-job.sh 123":
                assert jobs.of(123) == "todo"
                jobs.database.execute("UPDATE procrastinate_jobs SET status = 'doing' WHERE id = 123")
                jobs.database.execute("UPDATE procrastinate_jobs SET status = 'failed' WHERE id = 123")
            case "./scripts/jobs/retry-all-failed.sh email":
                assert (jobs.of(123), jobs.of(text)) == ("todo", "failed")
            case "./scripts/jobs/retry-all-failed.sh":
                assert (jobs.of(text), jobs.of(buried)) == ("todo", "todo")
                jobs.database.execute("UPDATE procrastinate_jobs SET status = 'doing' WHERE id = %s", [buried])
                jobs.database.execute("UPDATE procrastinate_jobs SET status = 'failed' WHERE id = %s", [buried])
                jobs.aged(buried, "91 days")
            case "./scripts/jobs/purge-old.sh 30":
                assert jobs.count(f"id = {old}") == 0
                assert jobs.of(buried) == "failed"
            case "./scripts/jobs/purge-old.sh 90 --include-failed":
                assert jobs.count(f"id = {buried}") == 0
    assert "email" in seen["./scripts/jobs/queue-stats.sh"]
    assert "ConnectionError: no route" in seen["./scripts/jobs/list-failed.sh"]
    assert "Traceback (most recent call last):" in seen["./scripts/jobs/job-status.sh 123"]


def test_every_script_of_the_quick_reference_is_there() -> None:
    named = {word for word in shlex.split(seed_jobs.QUICK_REFERENCE.replace("`", " ")) if word.endswith(".sh")}
    assert named == {f"./scripts/jobs/{path.name}" for path in (ROOT / "scripts" / "jobs").iterdir()}
    assert all(os.access(ROOT / name, os.X_OK) for name in named)


SCRIPTS = [
    "queue-stats.sh",
    "list-failed.sh",
    "job-status.sh 1",
    "retry-job.sh 1",
    "retry-all-failed.sh",
    "purge-old.sh 1",
]


@pytest.mark.needs("bash")
def test_scripts_name_the_variable_that_is_missing_and_pass_exit_codes_through(jobs_database_url: str) -> None:
    for script in (*SCRIPTS, "apply-schema.sh"):
        done = shell(f"./scripts/jobs/{script}", None)
        assert done.returncode == ExitCode.FAILED
        assert "JOB_QUEUE_DATABASE_URL is not set" in done.stderr
    wrong = [
        "queue-stats.sh extra",
        "job-status.sh",
        "retry-job.sh x",
        "purge-old.sh",
        "purge-old.sh x",
        "list-failed.sh 1",
    ]
    for script in (*wrong, "retry-all-failed.sh a b", "apply-schema.sh now"):
        assert shell(f"./scripts/jobs/{script}", jobs_database_url).returncode == ExitCode.USAGE, script
    assert shell("./scripts/jobs/job-status.sh 4711", jobs_database_url).returncode == ExitCode.NOT_FOUND
    gone = "postgresql://u:p@127.0.0.1:1/jobs"
    assert shell("./scripts/jobs/queue-stats.sh", gone).returncode == ExitCode.UNREACHABLE


@pytest.mark.needs("bash", "dash")
@pytest.mark.parametrize("where", ["in a checkout", "on PATH"])
def test_scripts_run_anywhere_in_any_shell(jobs: Jobs, jobs_database_url: str, tmp_path: Path, where: str) -> None:
    jobs.todo("email")
    copy = tmp_path / "a check out"
    copy.mkdir()
    subprocess.run(["cp", "-R", str(ROOT / "scripts"), str(copy)], check=True)
    path = "/usr/bin:/bin"
    if where == "in a checkout":
        (copy / ".venv").symlink_to(Path(sys.executable).parents[1])
    else:
        path = f"{Path(sys.executable).parent}:{path}"
    for command in (
        [str(copy / "scripts" / "jobs" / "queue-stats.sh"), "-o", "json"],
        ["dash", "a check out/scripts/jobs/queue-stats.sh", "-o", "json"],
    ):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={"PATH": path, "JOB_QUEUE_DATABASE_URL": jobs_database_url},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout[:1]) == (0, "["), done.stderr
    lost = subprocess.run(
        ["dash", "scripts/jobs/queue-stats.sh"], cwd=copy, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert lost.returncode == ExitCode.FAILED
    assert ("no intelliflow on PATH" in lost.stderr) == (where == "on PATH")


def test_procrastinate_s_shell_shows_and_retries(jobs: Jobs, jobs_database_url: str) -> None:
    waiting, failed = jobs.todo(task="greet"), jobs.failed(task="greet")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "procrastinate"), "--app=jobs_worker.app.job_queue", "shell"],
        input=f"list_jobs\nlist_queues\nlist_tasks\nretry {failed}\ncancel {waiting}\nexit\n",
        env={"JOB_QUEUE_DATABASE_URL": jobs_database_url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert f"#{waiting} greet on email - [todo]" in done.stdout
    assert "email: 2 jobs (todo: 1, doing: 0, succeeded: 0, failed: 1" in done.stdout
    assert (jobs.of(failed), jobs.of(waiting)) == ("todo", "cancelled")
    assert "Traceback" not in done.stdout + done.stderr
