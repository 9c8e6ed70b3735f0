"""The page for authors of workflows: its files are real, its definitions right, its commands run with a real worker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
import yaml

from worker_runtime.expressions import LONGEST_EXPRESSION, LONGEST_TEXT
from worker_suite import Process, wait_for
from workflow_worker.definition import read_definition
from workflow_worker.definition.input_schema import MOST_SCHEMA_CHARACTERS
from workflow_worker.definition.reading import DEEPEST_STEPS, MOST_STEPS, MOST_TEXTS
from workflow_worker.steps import STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "write-a-workflow.md").read_text()
EXAMPLES = ROOT / "docs" / "how-to" / "examples"


def fenced(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


JOURNEY, *OTHERS = (block.splitlines() for block in fenced("shell"))


@pytest.fixture
def environment(database_url: str, redis_url: str) -> dict[str, str]:
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "PYTHONPATH": str(EXAMPLES),
        "WORKFLOW_PACKAGES": "order_workflows",
    }


@pytest.fixture
def worker(tmp_path: Path, environment: dict[str, str]) -> Iterator[Process]:
    process = Process("workflow_worker", environment, tmp_path / "log")
    try:
        yield process.ready()
    finally:
        process.end()


def said(command: str, environment: dict[str, str]) -> str:
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_page_shows_the_files_as_they_are() -> None:
    names = ("test_order_workflows.py", "order_workflows/__init__.py")
    assert fenced("python") == [(EXAMPLES / name).read_text() for name in names]
    assert fenced("yaml")[0] == (EXAMPLES / "order-payment.yaml").read_text()


@pytest.mark.parametrize("document", [yaml.safe_load(block) for block in fenced("yaml")], ids=lambda one: one["name"])
def test_its_definitions_are_right(document: Any) -> None:
    assert read_definition(document).steps.all


def test_every_kind_of_step_is_there() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE.partition("## Expressions")[0], re.MULTILINE) == list(STEPS)
    assert {key for block in fenced("yaml") for key in STEPS if f" {key}:" in block} == set(STEPS)


def test_the_limits_are_these() -> None:
    page = PAGE.partition("## Limits")[2].partition("## In Python")[0]
    for limit in (MOST_STEPS, DEEPEST_STEPS, MOST_TEXTS, LONGEST_EXPRESSION, LONGEST_TEXT, MOST_SCHEMA_CHARACTERS):
        assert f" {limit:,}" in page


@pytest.mark.parametrize("command", [command for block in OTHERS for command in block])
def test_a_command_of_the_page_works(environment: dict[str, str], command: str) -> None:
    output = said(command, environment)
    if command.endswith("check"):
        assert output.splitlines() == [
            "note: workflow order.ship, version 1",
            "note: function pricing.discount",
            "configuration is valid",
        ]


def test_a_newcomer_gets_from_nothing_to_the_thanks(
    environment: dict[str, str], worker: Process, redis_url: str
) -> None:
    *commands, listing = JOURNEY
    for command in commands:
        said(command, environment)
    wait_for(lambda: "completed" in said(listing, environment), what="the end of the workflow", every=0.2)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        ids = client.lrange("intelliflow:notifications:email:wait", 0, -1)
        mails = [json.loads(client.hget(f"intelliflow:notifications:email:{one}", "data") or "") for one in ids[::-1]]
    assert [mail["content"]["body"] for mail in mails] == ["Please pay 90.", "Thank you."]
    assert worker.stop() == 143
