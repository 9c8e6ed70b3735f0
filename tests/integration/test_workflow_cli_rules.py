"""`intelliflow workflow rules save`: what is right becomes a version, what is wrong is told with its line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from command_line import operator
from worker_ops.exit_codes import ExitCode
from workflow_rows import ORG, enable, of

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Operator

__all__ = ["operator"]

RIGHT = """\
name: order-followup
trigger: {event: order.created, when: payload.total > 100}
steps:
  - id: rest
    wait: {seconds: 3600}
  - id: due
    wait: {until: "'2026-01-01T00:00:00Z'"}
  - id: total
    set: {total: input.payload.total}
"""
WRONG = """\
name: order-followup
steps:
  - id: rest
    wait: {seconds: 3600}
  - id: total
    set: {total: "1 +"}
  - id: rest
    nonsense: {}
"""
SAVE = f"workflow rules save --org {ORG}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rule.yaml"
    path.write_text(RIGHT)
    return path


def test_a_definition_is_a_new_version_only_when_it_has_changed(operator: Operator, file: Path) -> None:
    first = operator.json(f"{SAVE} {file}")
    assert (first["name"], first["version"], first["new"], first["trigger"]) == (
        "order-followup",
        1,
        True,
        "order.created",
    )
    again = operator.run(f"{SAVE} {file} -o json")
    assert (again.rows["version"], again.rows["new"]) == (1, False)
    assert "nothing has changed" in again.err
    file.write_text(RIGHT.replace("3600", "60").replace("order.created", "order.*"))
    assert (operator.json(f"{SAVE} {file}")["version"]) == 2
    shown = operator.json(f"workflow rules show order-followup --org {ORG}")
    assert (shown["version"], shown["trigger"], len(shown["versions"])) == (2, "order.*", 2)
    assert shown["definition"]["steps"][0] == {"id": "rest", "wait": {"seconds": 60}}
    old = operator.json(f"workflow rules show order-followup --org {ORG} --version 1")
    assert old["definition"]["steps"][0] == {"id": "rest", "wait": {"seconds": 3600}}
    assert operator.json(f"workflow rules save {file} --org org-2")["version"] == 1


def test_json_is_as_good_and_comments_change_nothing(operator: Operator, tmp_path: Path) -> None:
    path = tmp_path / "rule.json"
    path.write_text(json.dumps({"name": "plain", "steps": [{"id": "total", "set": {"total": "1 + 1"}}]}))
    assert operator.json(f"{SAVE} {path}")["version"] == 1
    path.write_text("# the same\nname: plain\nsteps: [{id: total, set: {total: 1 + 1}}]\n")
    assert operator.json(f"{SAVE} {path}")["new"] is False


def test_every_mistake_is_told_with_its_line_and_nothing_is_saved(operator: Operator, file: Path) -> None:
    operator.json(f"{SAVE} {file}")
    file.write_text(WRONG)
    said = operator.run(f"{SAVE} {file}")
    assert (said.code, said.out) == (ExitCode.FAILED, "")
    lines = said.err.splitlines()
    assert all(line.startswith(f"error: {file}:") for line in lines)
    for place in (f"{file}:6: steps.1", f"{file}:7: steps.2", f"{file}:8: steps.2"):
        assert any(place in line for line in lines), (place, said.err)
    assert operator.value("SELECT max(version) FROM fw_workflow_definitions") == 1
    assert operator.run(f"{SAVE} {file}.none").code == ExitCode.FAILED
    file.write_text("name: [")
    assert "is not YAML" in operator.run(f"{SAVE} {file}").err


def test_a_running_execution_stays_with_its_version(operator: Operator, file: Path) -> None:
    enable(operator)
    operator.json(f"{SAVE} {file}")
    started = operator.json(f"workflow start {ORG} order-followup")["executionId"]
    file.write_text(RIGHT.replace("3600", "60"))
    operator.json(f"{SAVE} {file}")
    assert of(operator, started, "rule_version") == 1
    assert of(operator, operator.json(f"workflow start {ORG} order-followup")["executionId"], "rule_version") == 2


def test_a_rule_that_is_switched_off_stays_so_and_one_without_code_says_so(operator: Operator, file: Path) -> None:
    operator.json(f"{SAVE} {file}")
    operator.json(f"workflow rules deactivate order-followup --org {ORG}")
    file.write_text("name: order-followup\nworkflow: order.fulfil\n")
    said = operator.run(f"{SAVE} {file}")
    assert f"rules activate order-followup --org {ORG}" in said.err
    assert "no worker has had order.fulfil" in said.err
    assert operator.value("SELECT trigger_event IS NULL FROM fw_workflow_rules")


def test_an_input_that_the_rule_does_not_accept_is_refused_before_anything_starts(
    operator: Operator, file: Path
) -> None:
    file.write_text(RIGHT + "input: {type: object, required: [orderId]}\n")
    operator.json(f"{SAVE} {file}")
    said = operator.run(f"workflow start {ORG} order-followup")
    assert said.code == ExitCode.FAILED
    assert "orderId" in said.err
    assert operator.value("SELECT count(*) FROM fw_workflow_executions") == 0
    assert operator.run(f"workflow start {ORG} order-followup --input", '{"orderId": 1}').code == ExitCode.OK


def test_a_definition_may_come_from_standard_input(operator: Operator, database_url: str) -> None:
    command = [sys.executable, "-m", "worker_ops", *f"{SAVE} - -o json".split()]
    environment = os.environ | {"DATABASE_URL": database_url}
    done = subprocess.run(command, input=RIGHT, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == 1
