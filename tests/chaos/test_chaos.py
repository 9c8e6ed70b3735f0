"""A short run at each run of the tests; `./dev bench chaos --minutes 30` is a long one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos.stage import Scene, play

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(240)
def test_the_nine_invariants_hold_while_everything_breaks(tmp_path: Path) -> None:
    verdict = play(Scene(seconds=15, seed=20261122, pause=(0.2, 1.2)), tmp_path)
    assert verdict.wrong == []
    counted = verdict.counted
    # Something happened to somebody, or this shows nothing.
    assert counted["events handled"] > 100
    assert counted["rolled back"]
    assert counted["runs that failed"]
    kinds = ("killed", "stopped", "frozen", "postgres", "redis", "cut off", "deposed")
    assert all(counted[f"trouble: {kind}"] for kind in kinds), counted
