"""The page for authors of tasks: its files are real, and its commands run with a real worker."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from jobs_worker.settings import JobsSettings
from jobs_worker.tasks.api import Request
from jobs_worker.tasks.email import Mail
from orders_api_process import EXAMPLES, environment
from scripted_http import ScriptedHttp, answer
from worker_suite import Process, wait_for

if TYPE_CHECKING:
    from jobs_worker.arguments import Arguments

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "write-a-task.md").read_text()


def fenced(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


JOURNEY, TESTS = (block.splitlines() for block in fenced("shell"))


def said(command: str, variables: dict[str, str]) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**os.environ, **variables, "PATH": path}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_page_shows_the_files_as_they_are() -> None:
    names = ("orders_api/tasks.py", "test_orders_api.py")
    assert fenced("python") == [(EXAMPLES / name).read_text() for name in names]


@pytest.mark.parametrize(("task", "kind"), [("email.send", Mail), ("api.call", Request)])
def test_every_argument_is_there(task: str, kind: type[Arguments]) -> None:
    (row,) = re.findall(rf"^\| `{task}` \|.*$", PAGE, re.MULTILINE)
    known = {field.alias for field in kind.model_fields.values()}
    assert set(re.findall(r"`(\w+)`", row.split("|")[3])) == known


@pytest.mark.needs("bash")
def test_the_example_s_own_tests_pass() -> None:
    (command,) = TESTS
    said(f"{command} -q -n0 -c {shlex.quote(str(ROOT / 'pyproject.toml'))}", {})


@pytest.mark.needs("bash", "psql")
async def test_a_newcomer_gets_from_nothing_to_the_parcel(
    database_url: str, jobs_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    async with ScriptedHttp() as warehouse:
        warehouse.always(answer(201))
        variables = environment(database_url, jobs_database_url, redis_url, WAREHOUSE_URL=warehouse.url)
        worker = Process("jobs_worker", variables, tmp_path / "log")
        try:
            await asyncio.to_thread(worker.ready)
            check, defer, look = JOURNEY
            listed = (await asyncio.to_thread(said, check, variables)).splitlines()
            assert {"note: task orders.pack", "note: task email.send", "configuration is valid"} <= set(listed)
            await asyncio.to_thread(said, defer, variables)
            await asyncio.to_thread(
                wait_for, lambda: said(look, variables) == "succeeded|1\n", 30, "the end of the job", 0.2
            )
        finally:
            worker.end()
    assert [json.loads(request.body) for request in warehouse.requests] == [{"order": "7"}]


def test_its_sql_runs(jobs_database_url: str) -> None:
    with psycopg.connect(jobs_database_url) as connection:
        assert connection.execute(fenced("sql")[0].encode()).fetchall() == []


def test_the_variables_are_those_of_the_worker() -> None:
    names = set(re.findall(r"\b(JOB_QUEUE_[A-Z_]+)\b", PAGE))
    assert names <= {name.upper() for name in JobsSettings.model_fields}
