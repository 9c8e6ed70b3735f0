"""The same scenarios for Node's worker and for ours: what they leave in Redis and tell listeners is the same.

What is not is said by the scenario, fact by fact, and in docs/explanation/compatibility.md.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from interop.aftermath import aftermath
from interop.scenarios import SCENARIOS
from interop.stage import Scenario, Stage, Theatre, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from interop.aftermath import Facts

# Starting Node costs more than most scenarios.
pytestmark = [pytest.mark.needs("node", "npm"), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def theatre(packages: Path, redis_for_all: str) -> AsyncIterator[Theatre]:
    async with opened(packages, redis_for_all) as theatre:
        yield theatre


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
async def test_both_workers_leave_the_same_behind(scenario: Scenario, theatre: Theatre) -> None:
    theirs, ours = await theatre.perform(scenario)
    assert differences(await facts(theirs), await facts(ours)) == scenario.differences


async def facts(stage: Stage) -> Facts:
    """Read what is left of the queue, and of those beside it with their name before each fact."""
    found = (await aftermath(stage.redis, stage.queue)).facts()
    for queue in stage.beside:
        left = (await aftermath(stage.redis, queue)).facts()
        found |= {f"{queue.name}: {path}": fact for path, fact in left.items()}
    return found


def differences(theirs: Facts, ours: Facts) -> dict[str, tuple[Any, Any]]:
    """List the facts that differ by their path, Node's first; a fact missing on one side is None.

    Of the events that were told, those that only one side has, when there are such.
    """
    paths = sorted(theirs.keys() | ours.keys())
    found = {path: (theirs.get(path), ours.get(path)) for path in paths if theirs.get(path) != ours.get(path)}
    if "events" in found:
        left, right = Counter[str](theirs["events"]), Counter[str](ours["events"])
        if left != right:
            found["events"] = list((left - right).elements()), list((right - left).elements())
    return found
