"""The job queue's runbook: its commands and statements run as they are typed, and what it names is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import seed_jobs
from jobs_rows import jobs
from jobs_worker.settings import JobsSettings
from worker_ops.exit_codes import ExitCode
from worker_runtime.metric_catalogue import CATALOGUE
from worker_runtime.settings.variables import variables_of

if TYPE_CHECKING:
    from jobs_rows import Jobs

__all__ = ["jobs"]

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "operations" / "runbooks" / "job-queue.md").read_text()
BLOCK = re.compile(r"(?:<!-- manual: (?P<manual>.+?) -->\n)?```(?P<language>\w+)\n(?P<body>.*?)```", re.DOTALL)
BLOCKS = [(found["language"], found["body"], found["manual"]) for found in BLOCK.finditer(RUNBOOK)]
BASH = [body for language, body, manual in BLOCKS if language == "bash" and not manual]
SQL = [body for language, body, _ in BLOCKS if language == "sql"]
# `migrate` has nothing to print, and neither has a line that sets a variable.
SILENT = ("./scripts/jobs/apply-schema.sh", "export ", "psql ", "#")


@pytest.fixture
def busy(jobs: Jobs) -> Jobs:
    """Jobs in every status; 123 has failed and 124 waits, as on the page."""
    live = jobs.worker()
    jobs.doing(live)
    jobs.doing(None, age="20 minutes")
    for status in ("succeeded", "aborted"):
        jobs.ended(status, age="31 days")
        jobs.ended(status)
    jobs.database.execute("SELECT setval('procrastinate_jobs_id_seq', 122)")
    jobs.failed(args={"to": "ada@example.com"})
    jobs.todo()
    jobs.failed(queue="sms", age="91 days")
    return jobs


def typed(command: list[str] | str, url: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        command if isinstance(command, list) else ["bash", "-c", f"set -e -o pipefail; {command}"],
        cwd=ROOT,
        env={"PATH": path, "JOB_QUEUE_DATABASE_URL": url},
        # Not a terminal: from here a bulk verb does what it says.
        **({"stdin": subprocess.DEVNULL} if given is None else {"input": given}),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.needs("bash", "psql")
@pytest.mark.parametrize("block", BASH, ids=lambda block: next(iter(re.findall(r"(?m)^[^#].*", block)))[:50])
def test_the_commands_of_a_block_work(busy: Jobs, jobs_database_url: str, block: str) -> None:
    for line in block.splitlines():
        done = typed(line, jobs_database_url)
        # Jobs 123 and 124 are there to be found; the doctor finds the one that has lost its worker.
        expected = ExitCode.PARTIAL if line == "intelliflow doctor" else ExitCode.OK
        assert done.returncode == expected, f"{line}\n{done.stdout}{done.stderr}"
        assert done.stdout.strip() or line.startswith(SILENT), line
        assert "ada@example.com" not in done.stdout


@pytest.mark.needs("psql")
@pytest.mark.parametrize("block", SQL, ids=lambda block: block.strip().splitlines()[0][:40])
def test_the_statements_of_a_block_work(busy: Jobs, jobs_database_url: str, block: str) -> None:
    command = ["psql", "-X", "-A", "-v", "ON_ERROR_STOP=1", "-f", "-", jobs_database_url]
    done = typed(command, jobs_database_url, block.replace("<job_id>", "123"))
    assert (done.returncode, done.stderr) == (0, ""), block
    assert done.stdout.strip()


def test_what_cannot_be_run_here_says_why() -> None:
    assert [manual for _, _, manual in BLOCKS if manual] == ["needs Docker"]
    assert {language for language, _, _ in BLOCKS} == {"bash", "sql", "text"}


def test_every_statement_of_the_earlier_runbook_is_there_word_for_word() -> None:
    shown = "\n".join(SQL)
    for block in seed_jobs.SQL:
        for part in block.strip().split("\n\n"):
            assert part in shown


def test_every_line_of_the_earlier_runbook_is_there() -> None:
    lines = [line.strip() for block in BASH for line in block.splitlines()]
    assert [line for line in seed_jobs.lines() if line not in lines] == []
    for line in seed_jobs.QUICK_REFERENCE.strip().splitlines():
        assert line in RUNBOOK


def first_column(heading: str) -> list[str]:
    """The names in the first column of the table with that heading."""
    table = RUNBOOK.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return [line.split("|")[1] for line in table.splitlines()[2:]]


def test_every_exit_code_is_told() -> None:
    assert [int(code) for code in first_column("exit code")] == list(ExitCode)


def test_every_status_and_every_column_is_explained(busy: Jobs, jobs_database_url: str) -> None:
    statuses = {
        row[0] for row in busy.database.execute("SELECT unnest(enum_range(NULL::procrastinate_job_status))::text")
    }
    assert {cell.strip(" `") for cell in first_column("status")} == statuses - {"aborting"}
    told = {name for cell in first_column("column") for name in re.findall(r"`(\w+)`", cell)}
    header = typed("./scripts/jobs/queue-stats.sh", jobs_database_url).stdout.splitlines()[0].split()
    assert set(header) - told == {"queue", "oldestWaitingAgeMs"}
    assert "`oldestWaitingAgeMs`" in RUNBOOK


def test_every_metric_and_setting_exists() -> None:
    assert set(re.findall(r"`(intelliflow_\w+)`", RUNBOOK)) <= {metric.name for metric in CATALOGUE}
    named = set(re.findall(r"`?\b((?:JOB_QUEUE|QUEUE)_[A-Z_]+)\b", RUNBOOK))
    assert named
    assert named <= {variable.name for variable in variables_of(JobsSettings)}


def test_days_are_those_that_workers_keep_jobs_for() -> None:
    fields = JobsSettings.model_fields
    assert f"`JOB_QUEUE_HISTORY_DAYS` ({fields['job_queue_history_days'].default})" in RUNBOOK
    assert f"`JOB_QUEUE_FAILED_HISTORY_DAYS` ({fields['job_queue_failed_history_days'].default})" in RUNBOOK
