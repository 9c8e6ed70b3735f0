"""How jobs end, and what they say before."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from interop.our_worker import LIKE_NODE
from interop.scenarios.jobs import A_MINUTE, a_job, failing, run
from interop.stage import Scenario

if TYPE_CHECKING:
    from interop.stage import Stage


async def progress_from_outside(stage: Stage) -> None:
    await stage.add(a_job("a", "hold"))
    await stage.open()
    await stage.has_begun("a")
    await stage.node.queue("updateJobProgress", "a", {"by": "Node"})
    await stage.node.queue("addJobLog", "a", "written by Node")
    await stage.let_end("a")
    await stage.quiet()


async def new_data(stage: Stage) -> None:
    await stage.add(a_job("a", data={"n": 1}, delay=A_MINUTE))
    await stage.node.job("a", "updateData", {"n": 2})
    await stage.node.job("a", "promote")
    await stage.open()
    await stage.quiet()


ENDS = [
    Scenario("completed", run(a_job("a", data={"n": "é\U0001f600"}), a_job("b", data={"n": 1.5}), a_job("c"))),
    Scenario("completed with what JSON can hold", run(a_job("a", data={"n": [None, True, {"": 1e300}, "\u2028\x00"]}))),
    Scenario("failed without a second attempt", run(failing("a"))),
    Scenario(
        "failed for good",
        run(a_job("a", "refuse", {"says": "never"}, attempts=5, backoff=10)),
        differences={"a.stacktrace": ("1", "0")},
    ),
    Scenario("progress", run(a_job("a", "progress", {"steps": {"percent": 50}}), a_job("b", "progress", {"steps": 7}))),
    Scenario("progress and log written by Node meanwhile", progress_from_outside),
    Scenario("log", run(a_job("a", "log", {"steps": ["one", "é\n", ""]}), a_job("b", "log", {"steps": []}))),
    Scenario("log, the last lines kept", run(a_job("a", "log", {"steps": ["1", "2", "3", "4"]}, keepLogs=2))),
    Scenario("without an id", run({"name": "complete", "data": {}}, {"name": "complete", "data": {}})),
    Scenario("data changed while it waits", new_data),
    Scenario(
        "counted for getMetrics",
        run(a_job("a"), a_job("b"), failing("c"), failing("d", 1, attempts=2)),
        theirs={"metrics": {"maxDataPoints": 60}},
        ours=replace(LIKE_NODE, metrics_minutes=60),
    ),
]
