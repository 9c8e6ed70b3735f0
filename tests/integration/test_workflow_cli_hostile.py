"""`intelliflow workflow` over data that somebody made to do harm to whoever looks at it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from command_line import operator
from worker_ops.exit_codes import ExitCode
from workflow_rows import ORG, dead, execution, step

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Operator

__all__ = ["operator"]

# Clears the screen, sets the title, the same by one character of eight bits, turns text around, and breaks the line.
EVIL = "a\x1b[2J\x1b]0;owned\x07\x9b2J\u202etxt\u2066\r\n<script>&\"'"
HARMFUL = ("\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\r")


def made_evil(operator: Operator) -> str:
    name = dead(operator, org=EVIL, workflow=EVIL, error=f"STEP_FAILED: {EVIL}", given={EVIL: EVIL})
    step(operator, name, EVIL, 1, 2, "failed", error=EVIL)
    step(operator, name, f"{EVIL}2", 2, 3, output={EVIL: EVIL})
    operator.database.execute("UPDATE fw_workflow_executions SET idempotency_key = %s, trace = %s", [EVIL, EVIL])
    operator.database.execute(
        "INSERT INTO fw_module_settings (organization_id, fw_worker_pause_reason) VALUES (%s, %s)", [EVIL, EVIL]
    )
    return name


@pytest.mark.parametrize(
    "line",
    [
        *("list", "list --group", "show {}", "show {} --reveal", "settings"),
        *("retry {}", "cancel {}", "dlq list", "rules list"),
    ],
)
def test_a_terminal_shows_it_and_obeys_nothing(operator: Operator, line: str) -> None:
    name = made_evil(operator)
    said = operator.run(f"workflow {line.format(name)}")
    assert not [one for one in HARMFUL if one in said.out + said.err]


def test_what_is_said_of_it_is_harmless_too(operator: Operator) -> None:
    made_evil(operator)
    for line in (("start", EVIL, EVIL), ("settings", EVIL), ("pause", EVIL, "--reason", "x"), ("purge", EVIL)):
        said = operator.run("workflow", *line)
        assert not [one for one in HARMFUL if one in said.out + said.err], line


def test_a_table_has_a_line_for_each_row_and_bounds(operator: Operator) -> None:
    execution(operator, org="x\n" * 100_000)
    execution(operator, org="y")
    said = operator.run("workflow list")
    assert len(said.out.splitlines()) == 3
    assert max(map(len, said.out.splitlines())) < 2_000


def test_programs_get_it_as_it_is(operator: Operator) -> None:
    made_evil(operator)
    assert operator.json("workflow list")[0]["organizationId"] == EVIL
    assert operator.run("workflow list -o ndjson").out.isascii()


def test_a_picture_holds_no_script(operator: Operator, tmp_path: Path) -> None:
    name, path = made_evil(operator), tmp_path / "a picture.svg"
    assert operator.run(f"workflow show {name} --svg", str(path)).code == ExitCode.OK
    picture = ET.parse(path)
    assert not [one for one in picture.iter() if one.tag.endswith("script")]
    assert "<script>" in "".join(picture.getroot().itertext())


@pytest.mark.parametrize("hostile", ["[" * 2_000 + "]" * 2_000, "9" * 5_000])
def test_what_cannot_be_read_is_shown_as_it_stands(operator: Operator, hostile: str) -> None:
    name = execution(operator, "failed")
    operator.database.execute("UPDATE fw_workflow_executions SET input = %s::jsonb", [f'{{"a": {hostile}}}'])
    shown = operator.json(f"workflow show {name} --reveal")
    assert hostile in shown["input"]


@pytest.mark.parametrize("given", ["[" * 300 + "]" * 300, "9" * 5_000, "NaN", "1e999", "{", "@/no/such/file", "@\0"])
def test_an_input_that_cannot_be_used_is_refused_in_a_sentence(operator: Operator, given: str) -> None:
    said = operator.run(f"workflow start {ORG} demo --input", given)
    assert said.code == ExitCode.USAGE
    assert "Traceback" not in said.err


@pytest.mark.parametrize("name", ["", "x", "1", "12345678-1234-1234-1234-1234567890abx", "../../etc/passwd", "\x1b[2J"])
def test_an_id_that_is_none_is_refused(operator: Operator, name: str) -> None:
    said = operator.run("workflow", "show", name)
    assert said.code == ExitCode.USAGE
    assert "\x1b" not in said.err


def intelliflow(url: str, *line: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "DATABASE_URL": url, **more.pop("environment", {})}
    return subprocess.run(
        [sys.executable, "-m", "worker_ops", *line], env=environment, check=False, capture_output=True, **more
    )


def test_a_locale_without_its_characters_does_not_stop_it(operator: Operator, database_url: str) -> None:
    execution(operator, org="J\u00fcrgen \u4f60\u597d")
    said = intelliflow(database_url, "workflow", "list", environment={"PYTHONIOENCODING": "ascii"})
    assert (said.returncode, b"Traceback" in said.stderr) == (0, False)
    assert b"J\\xfcrgen \\u4f60" in said.stdout


def test_who_stops_reading_gets_no_traceback(operator: Operator, database_url: str) -> None:
    for _ in range(30):
        execution(operator, org="x" * 400)
    command = f"exec 3>&1; {{ {shlex.quote(sys.executable)} -m worker_ops workflow list -o json 2>&3; }} | true"
    environment = {**os.environ, "DATABASE_URL": database_url}
    said = subprocess.run(["/bin/bash", "-c", command], env=environment, check=False, capture_output=True)
    assert said.stdout == b""


def test_a_file_may_have_any_name(operator: Operator, tmp_path: Path) -> None:
    path = tmp_path / "a b\u202e.yaml"
    path.write_text(json.dumps({"name": "a", "steps": []}))
    assert operator.run(f"workflow rules save --org {ORG}", str(path)).code == ExitCode.OK
    for broken in (tmp_path, tmp_path / "link", "/dev/zero", "a\0b"):
        if broken == tmp_path / "link":
            (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        said = operator.run(f"workflow rules save --org {ORG}", str(broken))
        assert said.code == ExitCode.FAILED, said
        assert "error: " in said.err
