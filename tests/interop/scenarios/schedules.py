"""Job schedulers, which Node sets up and whoever runs a schedule's job carries on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from interop.scenarios.jobs import A_MINUTE, LATER
from interop.stage import Scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from interop.stage import Added, Stage

EVERY_SECOND = "* * * * * *"
SECOND_MS = 1_000
# Long for a machine that is busy: a job that is made after its time goes straight to the others, and is not delayed.
SOON = 1_500
EARLY_PART = 0.4
TEMPLATE: Added = {"name": "complete", "data": {"n": 1}}


def scheduled(repeat: dict[str, Any], template: Added = TEMPLATE) -> Callable[[Stage], Awaitable[None]]:
    """Set up a schedule that comes to an end by itself, and wait for it."""

    async def play(stage: Stage) -> None:
        if "pattern" in repeat:
            await early_in_a_period(SECOND_MS)
        elif "offset" in repeat:
            await early_in_a_period(repeat["every"], repeat["offset"])
        await stage.node.queue("upsertJobScheduler", "tick", with_moments(repeat), template)
        await stage.open()
        await stage.quiet()

    return play


async def early_in_a_period(period_ms: int, offset_ms: int = 0) -> None:
    """Wait for one: if it ended while a schedule is set up, its first job would be due at once, and not delayed."""
    passed = (time.time() * 1000 - offset_ms) % period_ms
    if passed > EARLY_PART * period_ms:
        await asyncio.sleep((period_ms - passed) / 1000)  # Only the clock knows.


def with_moments(repeat: dict[str, Any]) -> dict[str, Any]:
    """Turn dates given as milliseconds from now into moments."""
    now = round(time.time() * 1000)
    return {name: now + value if name.endswith("Date") else value for name, value in repeat.items()}


async def until_a_moment(stage: Stage) -> None:
    """Two seconds begin before the end, whenever this is played."""
    await early_in_a_period(SECOND_MS)
    end = (time.time_ns() // 10**9 + 1) * 1000 + 1500
    await stage.node.queue("upsertJobScheduler", "tick", {"pattern": EVERY_SECOND, "endDate": end}, TEMPLATE)
    await stage.open()
    await stage.quiet()


async def changed(stage: Stage) -> None:
    await stage.node.queue("upsertJobScheduler", "tick", {"every": A_MINUTE}, TEMPLATE)
    await stage.open()
    await stage.has_completed(1)
    await stage.node.queue("upsertJobScheduler", "tick", {"every": SOON, "limit": 2}, {**TEMPLATE, "data": {"n": 2}})
    await stage.quiet()


async def changed_while_it_runs(stage: Stage) -> None:
    await stage.node.queue("upsertJobScheduler", "tick", {"every": A_MINUTE}, {"name": "hold"})
    await stage.open()
    job_id = await stage.scheduled_one_begins()
    await stage.node.queue("upsertJobScheduler", "tick", {"every": A_MINUTE, "limit": 9}, TEMPLATE)
    await stage.let_end(job_id)
    await stage.reaches(job_id, "completed")


async def to_cron(stage: Stage) -> None:
    await stage.node.queue("upsertJobScheduler", "tick", {"every": A_MINUTE}, TEMPLATE)
    await stage.open()
    await stage.has_completed(1)
    await early_in_a_period(SECOND_MS)
    await stage.node.queue("upsertJobScheduler", "tick", {"pattern": EVERY_SECOND, "limit": 1}, TEMPLATE)
    await stage.quiet()


async def removed(stage: Stage) -> None:
    await stage.node.queue("upsertJobScheduler", "tick", {"every": A_MINUTE}, TEMPLATE)
    await stage.open()
    await stage.has_completed(1)
    await stage.node.queue("removeJobScheduler", "tick")
    await stage.quiet()


async def removed_while_it_runs(stage: Stage) -> None:
    await stage.node.queue("upsertJobScheduler", "tick", {"every": SOON}, {"name": "hold"})
    await stage.open()
    job_id = await stage.scheduled_one_begins()
    await stage.node.queue("removeJobScheduler", "tick")
    await stage.let_end(job_id)
    await stage.quiet()


async def two_at_once(stage: Stage) -> None:
    await stage.node.queue("upsertJobScheduler", "tick", {"every": SOON, "limit": 2}, TEMPLATE)
    await stage.node.queue("upsertJobScheduler", "tock", {"every": SOON + 800, "limit": 2}, {"name": "complete"})
    await stage.open()
    await stage.quiet()


SCHEDULES = [
    Scenario("every so often, a number of times", scheduled({"every": SOON, "limit": 3})),
    Scenario("every so often, from a moment on", scheduled({"every": SOON, "limit": 2, "startDate": 1_500})),
    Scenario("every so often, until a moment", scheduled({"every": SOON, "endDate": 2_200})),
    Scenario("every so often, with an offset", scheduled({"every": SOON, "limit": 2, "offset": 500})),
    Scenario("cron, a number of times", scheduled({"pattern": EVERY_SECOND, "limit": 2})),
    Scenario("cron, at once", scheduled({"pattern": EVERY_SECOND, "limit": 2, "immediately": True})),
    Scenario("cron, from a moment on", scheduled({"pattern": EVERY_SECOND, "limit": 1, "startDate": 1500})),
    Scenario("cron, until a moment", until_a_moment),
    Scenario("cron, in a time zone", scheduled({"pattern": EVERY_SECOND, "limit": 2, "tz": "Asia/Kathmandu"})),
    Scenario(
        "with options for its jobs",
        scheduled(
            {"every": LATER, "limit": 2},
            {
                "name": "fail",
                "data": {"times": 1, "says": "no"},
                "opts": {
                    "attempts": 2,
                    "backoff": {"type": "fixed", "delay": 20},
                    "priority": 3,
                    "removeOnComplete": 1,
                },
            },
        ),
    ),
    Scenario(
        "with jobs that fail",
        scheduled({"every": SOON, "limit": 2}, {"name": "refuse", "data": {"says": "no"}}),
        differences={f"repeat:tick:#{number}.stacktrace": ("1", "0") for number in (1, 2)},
    ),
    Scenario("without a template", scheduled({"every": SOON, "limit": 2}, {"name": "complete"})),
    Scenario("two schedules", two_at_once),
    Scenario("changed", changed),
    Scenario("changed while its job runs", changed_while_it_runs),
    Scenario("changed to cron", to_cron),
    Scenario("removed", removed),
    Scenario("removed while its job runs", removed_while_it_runs),
]
