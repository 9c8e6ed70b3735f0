"""The first rule of the page, as a newcomer makes it: every command in its order, against the stack it starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "write-a-rule.md").read_text()
EXAMPLES = ROOT / "docs" / "how-to" / "examples"
COMMANDS = [line for block in re.findall(r"```shell\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
SERVE = "./dev run --serve"
SECONDS = 120.0

pytestmark = [pytest.mark.needs("bash"), pytest.mark.timeout(240)]


def test_the_page_shows_the_rule_as_it_is() -> None:
    assert re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0] == (EXAMPLES / "vip-lead.yaml").read_text()


def test_a_newcomer_gets_from_nothing_to_the_mail(tmp_path: Path) -> None:
    for part in ("docs", "workers"):
        (tmp_path / part).symlink_to(ROOT / part)
    start = next(number for number, line in enumerate(COMMANDS) if SERVE in line)
    said = [succeeds(tmp_path, line) for line in COMMANDS[:start]]
    expected = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[0]
    assert said[-1].startswith(expected)
    with serving(tmp_path, COMMANDS[start]):
        for line in COMMANDS[start + 1 : -1]:
            succeeds(tmp_path, line)
        mails = eventually(tmp_path, COMMANDS[-1])
    assert len(mails.splitlines()) == 1


def bash(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder / ".data" / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    script = f"if [ -e .data/environment ]; then . .data/environment; fi; {command}"
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60
    )


def succeeds(folder: Path, command: str) -> str:
    done = bash(folder, command)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def serving(folder: Path, command: str) -> Iterator[None]:
    """Run what `./dev` would become; its own bootstrap is tested elsewhere."""
    variables = dict(re.findall(r"(\w+)=(\S+)", command.removesuffix(SERVE)))
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "embedded_stack.first_run", "--serve"],
            cwd=folder,
            env=os.environ | variables,
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(folder / "output", "Everything stays up", process)
        yield
    finally:
        process.terminate()
        process.wait(60)


def wait_for(log: Path, words: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS
    while words not in (said := log.read_text()):
        assert process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.1)  # The stack tells it in its output only.


def eventually(folder: Path, command: str) -> str:
    """Run a command until it finds something, as a person would."""
    deadline = time.monotonic() + SECONDS
    while (done := bash(folder, command)).returncode != 0:
        assert time.monotonic() < deadline, f"{command}\n{done.stdout}{done.stderr}"
        time.sleep(0.1)  # A mail arrives when it arrives.
    return done.stdout
