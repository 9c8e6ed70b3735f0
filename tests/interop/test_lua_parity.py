"""The scripts our engine runs, function by function beside those of the Node release our peers run.

Both packages ship Lua with its includes written out, in whatever order; comments, blank lines and that order do not
count. What differs is listed here with its reason, and a difference that is new, or gone, fails.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.resources
import json
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

import worker_runtime.bullmq

pytestmark = pytest.mark.needs("node", "npm")

BLOCK_COMMENT = re.compile(r"--\[\[.*?\]\]", re.DOTALL)
MAIN = "(main)"
ENGINE = Path(worker_runtime.bullmq.__path__[0])
IN_USE = sorted(
    {name for file in ENGINE.glob("*.py") for name in re.findall(r'shipped\("([^"]+)"\)', file.read_text())}
)
PRINT_CONTENTS = """
const contents = process.argv.slice(1).map((path) => Object.values(require(path)).find((it) => it.content).content);
process.stdout.write(JSON.stringify(contents));
"""


class Known(NamedTuple):
    """Why a function differs, and the fingerprint of how."""

    why: str
    fingerprint: str


FLOW = "Node can put a finished job under a new parent and release the parent later; ours adds no flows"
RESCHEDULE = "Node's deduplication option `reschedule` moves the kept job's delay; ours ignores that option"
ORPHAN = "Node lets a child leave a parent that was removed; matters to flows only, which ours does not add"

OF_ALL_THREE = {
    MAIN: Known(f"the arguments for the others here: {FLOW}. {RESCHEDULE}", "fd6c70f1f08f"),
    "deduplicateJob": Known(RESCHEDULE, "eb2edc3df5f2"),
    "updateExistingJobsParent": Known(FLOW, "bd03cba7dbd7"),
    "handleDuplicatedJob": Known(f"{FLOW}. {ORPHAN}", "7c0b8d8712de"),
}
# How to put a job into `delayed`, which the third script knows in both releases.
DELAYING = {
    "addDelayedJob": Known(RESCHEDULE, "a4e164b0ed19"),
    "getDelayedScore": Known(RESCHEDULE, "1dc8ae22e3fb"),
}
KNOWN: dict[str, dict[str, Known]] = {
    "addDelayedJob-6": OF_ALL_THREE,
    "addPrioritizedJob-9": OF_ALL_THREE | DELAYING,
    "addStandardJob-9": OF_ALL_THREE | DELAYING,
}


@pytest.fixture(scope="session")
def of_node(packages: Path) -> dict[str, str]:
    folder = packages / "node_modules" / "bullmq" / "dist" / "cjs" / "scripts"
    paths = [str(folder / f"{name}.js") for name in IN_USE]
    done = subprocess.run(["node", "-e", PRINT_CONTENTS, *paths], check=True, capture_output=True, timeout=30)
    return dict(zip(IN_USE, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", IN_USE)
def test_a_script_is_node_s_but_for_what_is_known(name: str, of_node: dict[str, str]) -> None:
    ours, nodes = functions(of_python(name)), functions(of_node[name])
    found = {part: difference(ours.get(part, []), nodes.get(part, [])) for part in ours.keys() | nodes.keys()}
    differing = {part: lines for part, lines in found.items() if lines}
    known = {part: known.fingerprint for part, known in KNOWN.get(name, {}).items()}
    changes = (line for part, lines in sorted(differing.items()) for line in (f"{part}:", *lines))
    explained = "\n".join(["docs/how-to/upgrade-bullmq.md says what to do about these:", *changes])
    assert {part: fingerprint(lines) for part, lines in differing.items()} == known, explained


def test_no_difference_is_listed_of_a_script_that_is_not_in_use() -> None:
    assert KNOWN.keys() <= set(IN_USE)


def of_python(name: str) -> str:
    return (importlib.resources.files("bullmq") / "commands" / f"{name}.lua").read_text("utf-8")


def functions(source: str) -> dict[str, list[str]]:
    """Cut a script into its functions by name, and what is left, comments and layout dropped."""
    found: dict[str, list[str]] = {MAIN: []}
    part = MAIN
    for line in BLOCK_COMMENT.sub("", source).splitlines():
        code = line.partition("--")[0]
        if starts := re.match(r"local function (\w+)", code):
            part = starts[1]
            found[part] = []
        if words := code.split():
            found[part].append(" ".join(words))
        if code.rstrip() == "end":
            part = MAIN
    return found


def difference(ours: list[str], nodes: list[str]) -> list[str]:
    lines = difflib.unified_diff(ours, nodes, "ours", "node", lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def fingerprint(lines: list[str]) -> str:
    return hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()[:12]
