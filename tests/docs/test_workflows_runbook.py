"""What the workflows runbook names is there: statuses, exit codes, metrics, settings, commands."""

from __future__ import annotations

import re
from pathlib import Path

from worker_ops.exit_codes import ExitCode
from worker_ops.workflow.executions_store import STATUSES
from worker_ops.workflow.timeline_text import FILL, UNTIL_NEXT
from worker_runtime.metric_catalogue import CATALOGUE
from worker_runtime.settings.variables import variables_of
from workflow_worker.settings import WorkflowSettings

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "operations" / "runbooks" / "workflows.md").read_text()


def first_column(heading: str) -> list[str]:
    """The names in the first column of the table with that heading."""
    table = RUNBOOK.partition(f"| {heading} |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    return [name for cell in cells for name in re.findall(r"(\w+)", cell)]


def test_every_status_is_explained() -> None:
    assert set(first_column("status")) == set(STATUSES)


def test_every_exit_code_is_told() -> None:
    assert [int(code) for code in first_column("exit code")] == list(ExitCode)


def test_every_character_of_a_timeline_is_explained() -> None:
    section = RUNBOOK.partition("`show` draws")[2].partition("\n\n")[0]
    assert {*FILL.values(), UNTIL_NEXT} == set(re.findall(r"`(.)`", section))


def test_every_metric_and_setting_exists() -> None:
    known = {metric.name for metric in CATALOGUE}
    assert set(re.findall(r"`(intelliflow_\w+)`", RUNBOOK)) <= known
    settings = {variable.name for variable in variables_of(WorkflowSettings)}
    named = set(re.findall(r"`((?:WORKFLOW|QUEUE|DATABASE)_\w+)`", RUNBOOK))
    assert named
    assert named <= settings
