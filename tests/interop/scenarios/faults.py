"""What happens to a job beside its handler: workers that die, locks that are lost, jobs that nobody can read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from interop.our_worker import LIKE_NODE
from interop.scenarios.jobs import A_MINUTE, a_flow, a_job, failing, run
from interop.stage import Scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from interop.stage import Added, Stage

    Script = Callable[[Stage], Awaitable[None]]

SAID_STALLED = (
    "job stalled more than allowable limit",
    "the worker died or froze while running it, each time it was tried",
)
STALLED_TOO_OFTEN = {
    "a.failedReason": SAID_STALLED,
    "a.stacktrace": ("1", "0"),
    "failed a: failedReason": tuple([said] for said in SAID_STALLED),
}


def stalls(name: str, job: Added, *, allowed: int = 1, parent: Added | None = None, **more: Any) -> Scenario:
    """A worker dies with the job in its hands, and another one finds it."""

    async def die(stage: Stage) -> None:
        await (stage.node.flow("add", a_flow(parent, job)) if parent else stage.add(job))
        assert await stage.node.abandon() == "a"

    async def recover(stage: Stage) -> None:
        await stage.reaches("a", "waiting")
        await stage.add(a_job("z"))
        await stage.open()
        await stage.quiet()

    theirs = {"stalledInterval": 100, "maxStalledCount": allowed}
    ours = replace(LIKE_NODE, stalled_interval_ms=100, max_stalls=allowed)
    return Scenario(name, recover, theirs, ours, before=die, **more)


def while_it_runs(act: Script) -> Script:
    """Do something to a job while it runs; the next one shows that its worker has got over it."""

    async def play(stage: Stage) -> None:
        await stage.add(a_job("a", "hold"), a_job("b"))
        await stage.open()
        await stage.has_begun("a")
        await act(stage)
        await stage.let_end("a")
        await stage.reaches("b", "completed")

    return play


async def steal_the_lock(stage: Stage) -> None:
    await stage.redis.call("SET", stage.queue.key("a:lock"), "somebody else's")


async def forget_the_lock(stage: Stage) -> None:
    await stage.redis.call("DEL", stage.queue.key("a:lock"))


async def obliterate(stage: Stage) -> None:
    await stage.node.queue("obliterate", {"force": True})
    await stage.add(a_job("b"))
    await stage.open()


async def found_again(stage: Stage) -> None:
    await while_it_runs(forget_the_lock)(stage)
    await stage.reaches("a", "completed")


async def remove(stage: Stage) -> None:
    assert await stage.node.queue("remove", "a") == 0


def broken(job: Added, field: str, written: str) -> Script:
    """Write nonsense into a job's hash before anybody takes it."""

    async def play(stage: Stage) -> None:
        await stage.add(job, a_job("z"))
        await stage.redis.call("HSET", stage.queue.key("a"), field, written)
        await stage.open()
        await stage.reaches("z", "completed")

    return play


async def nothing_but_an_id(stage: Stage) -> None:
    await stage.redis.call("LPUSH", stage.queue.key("wait"), "a")
    await stage.open()
    await stage.quiet()


async def a_schedule_nobody_can_read(stage: Stage) -> None:
    await stage.node.queue("upsertJobScheduler", "tick", {"every": A_MINUTE}, {"name": "complete"})
    (job,) = await stage.node.queue("getWaiting")
    nonsense = json.dumps({"repeat": {"pattern": "at noon", "count": 1}, "jobId": job["id"]})
    await stage.redis.call("HSET", stage.queue.key(job["id"]), "opts", nonsense)
    await stage.add(a_job("z"))
    await stage.open()
    await stage.reaches("z", "completed")


def buried_here(says: str, **more: tuple[Any, Any]) -> dict[str, tuple[Any, Any]]:
    """List what a dead letter has that Node's worker does not write; `more` is what it does instead."""
    return {
        "a.failedReason": (None, says),
        "a.stacktrace": (None, "0"),
        "failed": ([], ["a"]),
        "failed a: failedReason": (None, [says]),
        "failed a: prev": (None, ["active"]),
        "retries-exhausted a: attemptsMade": (None, ["1"]),
        **more,
    }


# Node's worker lets go of such a job: it stays where it is, its lock runs out, and it stalls.
LEFT_ACTIVE: dict[str, tuple[Any, Any]] = {
    "a.atm": (None, "1"),
    "a.finishedOn": (None, "a moment"),
    "a:lock": ("a token", None),
    "active": (["a"], []),
}
NOT_JSON = "not readable as JSON: key must be a string at line 1 column 2"
TOO_LARGE = "2097163 bytes, over QUEUE_MAX_PAYLOAD_BYTES (2097152)"
# Node's handlers here go by the name of a job, and this one has none.
NO_HANDLER = "behaviours[job.name] is not a function"
NO_DATA = "the job has no data: it was removed while it waited"
LARGE = {"says": "x" * 2_097_152}

FAULTS = [
    stalls("stalled", a_job("a", data={"n": 1})),
    stalls("stalled with attempts left", failing("a", 1, attempts=2)),
    stalls("stalled with a priority", a_job("a", priority=3)),
    stalls("stalled more often than allowed", a_job("a"), allowed=0, differences=STALLED_TOO_OFTEN),
    stalls(
        "stalled more often than allowed, attempts left",
        a_job("a", attempts=5, backoff=50),
        allowed=0,
        differences=STALLED_TOO_OFTEN,
    ),
    stalls(
        "a child stalled more often than allowed",
        a_job("a", failParentOnFailure=True),
        parent=a_job("parent"),
        allowed=0,
        differences=STALLED_TOO_OFTEN | {"parent.stacktrace": ("1", "0")},
    ),
    Scenario("a lock taken by somebody else", while_it_runs(steal_the_lock)),
    Scenario(
        "a lock that ran out and that nobody took",
        found_again,
        theirs={"stalledInterval": 100},
        ours=replace(LIKE_NODE, stalled_interval_ms=100),
        differences={
            "a.ats": ("2", "1"),
            "a.stc": ("1", None),
            "active a: prev": (["waiting", "waiting"], ["waiting"]),
            "events": (["waiting a", "active a", "stalled a"], []),
            "waiting a: prev": (["active"], None),
        },
    ),
    Scenario("removed with its whole queue while it runs", while_it_runs(obliterate)),
    Scenario("not removed while it runs", while_it_runs(remove)),
    Scenario(
        "not JSON",
        broken(a_job("a"), "data", "{oops"),
        differences=buried_here(NOT_JSON, **LEFT_ACTIVE, events=([], ["failed a", "retries-exhausted a", "drained"])),
    ),
    Scenario(
        "nothing but an id",
        nothing_but_an_id,
        differences={
            "a.failedReason": (NO_HANDLER, NO_DATA),
            "a.stacktrace": ("1", "0"),
            "failed a: failedReason": ([NO_HANDLER], [NO_DATA]),
        },
    ),
    Scenario(
        "too large",
        run(a_job("a", data=LARGE)),
        differences=buried_here(
            TOO_LARGE,
            **{
                "a.returnvalue": ({"echoed": None}, None),
                "completed": (["a"], []),
                "completed a: prev": (["active"], None),
                "completed a: returnvalue": ([{"echoed": None}], None),
                "events": (["completed a"], ["failed a", "retries-exhausted a"]),
            },
        ),
    ),
    Scenario(
        "half an emoji",
        run(a_job("a", data={"n": "\ud83d"})),
        differences={
            "a.returnvalue": ({"echoed": "\ud83d"}, {"echoed": "?"}),
            "completed a: returnvalue": ([{"echoed": "\ud83d"}], [{"echoed": "?"}]),
        },
    ),
    Scenario(
        "a back-off nobody knows",
        broken(failing("a"), "opts", '{"attempts": 3, "backoff": {"type": "fibonacci"}}'),
        differences={
            **LEFT_ACTIVE,
            "a.failedReason": (None, "no"),
            "a.stacktrace": (None, "1"),
            "events": ([], ["failed a", "drained"]),
            "failed": ([], ["a"]),
            "failed a: failedReason": (None, ["no"]),
            "failed a: prev": (None, ["active"]),
        },
    ),
    Scenario(
        "a schedule nobody can read",
        a_schedule_nobody_can_read,
        differences={
            "active": (["repeat:tick:#1"], []),
            "completed": (["z"], ["repeat:tick:#1", "z"]),
            "completed repeat:tick:#1: prev": (None, ["active"]),
            "completed repeat:tick:#1: returnvalue": (None, [{"echoed": None}]),
            "events": ([], ["completed repeat:tick:#1", "drained"]),
            "repeat:tick:#1.atm": (None, "1"),
            "repeat:tick:#1.finishedOn": (None, "a moment"),
            "repeat:tick:#1.returnvalue": (None, {"echoed": None}),
            "repeat:tick:#1:lock": ("a token", None),
        },
    ),
]
