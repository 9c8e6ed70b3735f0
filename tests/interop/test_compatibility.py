"""docs/explanation/compatibility.md tells of every difference there is, and of none that no test shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from interop.scenarios import SCENARIOS
from worker_runtime.bullmq.engine_options import EngineOptions

if TYPE_CHECKING:
    from interop.node_peer import NodePeer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "compatibility.md").read_text()
ROWS = [row.strip("| ").split(" | ") for row in PAGE.splitlines() if row.startswith("| ")]
DIFFERENCES = [row for row in ROWS if row[0] != "what" and not row[0].startswith("---")]
SHOWN_BY = [name for row in DIFFERENCES for name in re.findall(r"`([^`]+)`", row[-1])]
TESTS = {
    name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
}


def test_every_difference_is_shown_by_something_that_exists() -> None:
    assert DIFFERENCES
    assert all(re.search("`", row[-1]) for row in DIFFERENCES)
    assert set(SHOWN_BY) <= TESTS | SCENARIOS.keys()


def test_every_scenario_that_differs_is_on_the_page_and_no_other() -> None:
    differing = {name for name, scenario in SCENARIOS.items() if scenario.differences}
    assert set(SHOWN_BY) - TESTS == differing


def test_the_page_counts_the_scenarios() -> None:
    assert f"{len(SCENARIOS)} scenarios" in PAGE


@pytest.mark.needs("node", "npm")
async def test_the_defaults_are_those_of_the_page(node: NodePeer) -> None:
    await node.work()
    theirs, ours = await node.options(), EngineOptions()
    assert [row[1:3] for row in DIFFERENCES if row[-1] == "`test_the_defaults_are_those_of_the_page`"] == [
        [str(theirs["lockDuration"]), str(ours.lock_ms)],
        [str(theirs["stalledInterval"]), str(ours.stalled_interval_ms)],
        [str(theirs["maxStalledCount"]), str(ours.max_stalls)],
        [str(theirs["concurrency"]), str(ours.concurrency)],
        ["kept", f"{ours.keep_completed['age'] // 3600} hours, {ours.keep_completed['count']:,}"],
        ["kept", f"{ours.keep_failed['age'] // 86_400} days"],
    ]
    assert theirs.keys().isdisjoint({"removeOnComplete", "removeOnFail"})
