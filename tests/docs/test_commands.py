"""Every command in the README and the documents runs, as written, against a running `./dev run --serve`."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from events_worker.rules import load_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- manual: (?P<manual>.+?) -->\n)?```(?P<language>\w*)\n(?P<body>.*?)```", re.DOTALL)
# Commands nobody could run in a test: each must say why, and there may not be more without somebody deciding it here.
MOST_MANUAL_BLOCKS = 3
# An empty set has no members to print, and what changes nothing says so beside the data.
SILENT = ("redis-cli ZRANGE", "intelliflow migrate")
JOB_QUEUE = "docs/operations/runbooks/job-queue.md"
# These stop all workers and end all executions: test_workflow_sql_pages.py gives each section a database of its own.
OWN_DATABASE = {
    "docs/operations/runbooks/workflow-runbook.md",
    "docs/operations/workflow-admin-guide.md",
    # Its SQL needs the rule that its page saves first: test_start_a_workflow.py.
    "docs/how-to/start-a-workflow.md",
    # Those of jobs are about another database, and have tests of their own.
    "docs/how-to/defer-a-job.md",
    "docs/how-to/write-a-task.md",
    JOB_QUEUE,
}
USUAL_PORTS = {
    "events-worker": 3100,
    "ingestion-worker": 3101,
    "notifications-worker": 3102,
    "workflow-worker": 3103,
    "jobs-worker": 3104,
}

pytestmark = [pytest.mark.needs("curl", "jq", "bash"), pytest.mark.timeout(240)]


@dataclass(frozen=True)
class Block:
    document: str
    language: str
    body: str
    manual: str | None


def blocks() -> list[Block]:
    return [
        Block(str(path.relative_to(ROOT)), found["language"], found["body"], found["manual"])
        for path in DOCUMENTS
        for found in BLOCK.finditer(path.read_text())
    ]


def scripts() -> list[tuple[str, tuple[str, ...]]]:
    """Return each block of commands: one may build on the one above it."""
    runnable = [
        block for block in blocks() if block.language == "bash" and not block.manual and block.document != JOB_QUEUE
    ]
    return [(block.document, tuple(lines)) for block in runnable if (lines := list(commands_in(block)))]


def commands_in(block: Block) -> Iterator[str]:
    for line in block.body.splitlines():
        if line.strip() and not line.startswith("#"):
            yield line


@dataclass(frozen=True)
class Served:
    """A running stack and where its workers listen."""

    folder: Path
    ports: dict[int, int]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        for usual, actual in self.ports.items():
            command = command.replace(f"localhost:{usual}", f"127.0.0.1:{actual}")
        # This is what ./dev shell does; its own bootstrap is tested elsewhere.
        command = command.replace("./dev shell -c", "bash -c")
        path = os.pathsep.join(
            [str(self.folder / ".data" / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        )
        environment = os.environ | {"PATH": path}
        script = f"set -o pipefail; . .data/environment; {command}"
        return subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60
        )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served stack")
    # As in a checkout: commands name the examples.
    (folder / "docs").symlink_to(ROOT / "docs")
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "embedded_stack.first_run", "--serve"], cwd=folder, stdout=output, stderr=output
        )
    try:
        ports = wait_until_served(process, folder / "output")
        yield Served(folder, ports)
    finally:
        process.terminate()
        process.wait(60)


def wait_until_served(process: subprocess.Popen[bytes], output: Path) -> dict[int, int]:
    deadline = time.monotonic() + 120
    while "Everything stays up" not in (said := output.read_text()):
        assert process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.1)  # The stack tells it in its output only.
    found = re.findall(rf"({'|'.join(USUAL_PORTS)}): http://localhost:(\d+)", said)
    assert len(found) == len(USUAL_PORTS), said
    return {USUAL_PORTS[name]: int(port) for name, port in found}


@pytest.mark.parametrize(("document", "commands"), scripts(), ids=lambda part: str(part)[:60])
def test_the_commands_work(served: Served, document: str, commands: tuple[str, ...]) -> None:
    for command in commands:
        done = served.run(command)
        assert done.returncode == 0, f"{document}: {command}\n{done.stdout}{done.stderr}"
        assert not re.search(r"\b(ERR|WRONGTYPE|NOAUTH)\b", done.stdout)
        assert done.stdout.strip() or command.startswith(SILENT)


def test_the_sql_of_the_documents_works(served: Served) -> None:
    for block in blocks():
        if block.language == "sql" and block.document not in OWN_DATABASE:
            done = served.run(f"psql -v ON_ERROR_STOP=1 -c {shlex.quote(block.body)}")
            assert done.returncode == 0, f"{block.document}: {done.stderr}"


def test_the_rules_of_the_documents_are_valid(tmp_path: Path) -> None:
    for block in blocks():
        if block.language == "yaml" and "rules" in yaml.safe_load(block.body):
            path = tmp_path / "rules.yaml"
            path.write_text(block.body)
            assert load_rules(path).rules


def test_what_is_left_to_hand_says_why_and_is_counted() -> None:
    manual = [block for block in blocks() if block.manual]
    assert len(manual) <= MOST_MANUAL_BLOCKS
    assert all(block.language == "bash" for block in manual)


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
