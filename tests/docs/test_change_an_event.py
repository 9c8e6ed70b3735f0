"""The page on changing events: its examples are contracts, its commands run, its claims hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from events_worker.contracts import SHIPPED, Accepted, load_catalogue, load_contracts
from events_worker.contracts.changes import breaks
from events_worker.contracts.lifting import VERBS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "change-an-event.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in re.findall(r"```shell\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture
def examples(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.yaml" for number in range(len(EXAMPLES))]
    for path, text in zip(paths, EXAMPLES, strict=True):
        path.write_text(text)
    return paths


def test_the_second_example_is_a_good_successor_of_the_first(examples: list[Path]) -> None:
    first, second = map(load_catalogue, examples)
    assert breaks(first, second) == []
    assert breaks(second, first) != []


def test_the_example_lifts(examples: list[Path]) -> None:
    paid = {"invoiceId": "i-1", "tenantId": "t-1", "amount": "9.50"}
    contracts = load_contracts(examples[1])
    rest = {"money": {"amount": "9.50", "currency": "EUR"}, "state": "full"}
    assert contracts.read("invoice.paid", "1.0", paid) == Accepted(
        "2.0", {"invoiceId": "i-1", "tenantId": "t-1", **rest}
    )
    assert contracts.blocks("invoice.paid")


def test_the_page_names_every_step_and_no_other() -> None:
    assert sorted(re.findall(r"^\| `\{(\w+):", PAGE, re.MULTILINE)) == sorted(VERBS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_works(command: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "nothing breaks\n")


def test_the_page_shows_what_the_check_says(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```text\n(.*?)\n```", PAGE, re.DOTALL)
    before, lead, after = re.split(r"(  lead\.created:\n(?:.+\n)+)", SHIPPED.read_text())
    renamed = tmp_path / "renamed.yaml"
    renamed.write_text(before + lead.replace("email", "mail") + after)
    assert shown in breaks(load_catalogue(), load_catalogue(renamed))
