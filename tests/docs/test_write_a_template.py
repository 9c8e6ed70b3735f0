"""The page about templates: its commands run, and its example is the one beside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from notifications_worker import bounded_jinja, templates

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "write-a-template.md").read_text()
EXAMPLES = ROOT / "docs" / "how-to" / "examples"
COMMANDS = [line for block in re.findall(r"```shell\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]

pytestmark = pytest.mark.needs("bash")


def bash(folder: Path, command: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_page_shows_the_template_as_it_is() -> None:
    shown = re.findall(r"```jinja\n(.*?)```", PAGE, re.DOTALL)

    assert shown == [(EXAMPLES / "templates" / "invoice-ready.txt.j2").read_text()]


def test_its_commands_write_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    listed, preview, _, overridden = [bash(tmp_path, command) for command in COMMANDS]

    assert "invoice-ready" in listed
    assert [preview] == re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert "<li>One engine: 79.90 EUR</li>" in (tmp_path / "invoice.html").read_text()
    assert '"subject": "Welcome"' in overridden


def test_the_limits_it_names_are_the_real_ones() -> None:
    assert f"| {templates.RENDER_SECONDS:g} s |" in PAGE
    assert f"| {templates.MAX_CHARACTERS:,} characters |" in PAGE
    assert f"| {bounded_jinja.MOST_ELEMENTS:,} elements, {bounded_jinja.MOST_BITS:,} bits |" in PAGE
