"""Connections that break at every single command, again and again, and one that is slow. Each test counts the jobs."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import pytest
from bullmq import Queue

from engine_harness import QUICK, Bench, bench
from fault_proxy import Command, Cuts, FaultProxy, When
from worker_runtime.bullmq import producer, scripts
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.bullmq.settlement import Complete, Delay, Fail, HandBack, Settlement
from worker_runtime.redis.connection import RedisConnection, RedisUnavailable, Script

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from worker_runtime.bullmq.claimed import ClaimedJob
    from worker_runtime.bullmq.leases import Lease

T = TypeVar("T")
# Quick to look for what a lost answer left behind; no lock expires, so that nothing else brings it to light.
PROMPT = replace(QUICK, concurrency=2, lock_ms=60_000, renew_seconds=0.05)
SEVERAL_AT_ONCE = 12
# How often each job of the scenario runs, and that it is settled in the end.
RUNS = {"plain-0": 1, "plain-1": 1, "plain-2": 1, "late": 1, "low": 1, "fails": 1}
RUNS |= {"waits": 2, "again": 2, "defers": 2, "held": 2, "scheduled": 2}
SETTLED = dict.fromkeys(RUNS, 1) | {"scheduled": 2}
NAMES = {
    script.sha: name
    for module in (producer, scripts)
    for name, script in vars(module).items()
    if isinstance(script, Script)
}
# How many of these a run sends depends on the clock; and a script is sent whole (EVAL) once for all runs.
BY_THE_CLOCK = {"RENEW", "RECOVER_STALLED", "HELD_BY", "BZPOPMIN", "AUTH", "CLIENT", "PING", "ZADD", "EVAL"}


@dataclass(frozen=True)
class Aftermath:
    """How often each job ran and was settled, and what is left of it."""

    runs: Counter[str]
    settled: Counter[str]
    left: list[str]


AS_IT_SHOULD_BE = Aftermath(Counter(RUNS), Counter(SETTLED), [])


async def play(redis_url: str, name: QueueName, cuts: Cuts) -> tuple[Aftermath, list[str], list[str]]:
    """Have one job of each kind worked over connections that break there.

    Also return which commands passed and at which the connection broke.
    """
    async with bench(redis_url, name) as direct:
        async with FaultProxy(redis_url, cuts=cuts) as proxy, bench(proxy.url, name) as queue:
            runs = await work_one_of_each(queue, direct)
        aftermath = Aftermath(runs, await settlements(direct), await leftovers(direct))
    return aftermath, list(map(name_of, proxy.commands)), list(map(name_of, proxy.victims))


def name_of(command: Command) -> str:
    return NAMES.get(command.argument, command.name)


async def work_one_of_each(queue: Bench, direct: Bench) -> Counter[str]:
    runs: Counter[str] = Counter()

    async def execute(lease: Lease) -> Settlement:
        job = kind_of(str(lease.job))
        runs[job] += 1
        return ending(job, lease, runs[job])

    await schedule_two(direct)
    async with queue.engine(execute, PROMPT):
        await patiently(lambda: queue.queue.add_bulk([NewJob("job", {}, job_id=f"plain-{n}") for n in range(3)]))
        late, low = NewJob("job", {}, job_id="late", delay_ms=20), NewJob("job", {}, job_id="low", priority=5)
        alike = [NewJob("job", {}, job_id=job) for job in ("waits", "again", "defers", "held", "fails")]
        for job in (late, low, *alike):
            await patiently(lambda job=job: queue.queue.add(job))  # type: ignore[misc]
        await direct.finished(sum(SETTLED.values()))
    return runs


def kind_of(job: str) -> str:
    return "scheduled" if job.startswith("repeat:") else job


def ending(job: str, lease: Lease, run: int) -> Settlement:
    first = lease.job.attempts_made == 0
    match job:
        case "waits" if first:
            return Delay(10, costs_attempt=True, fields={"failedReason": "once"})
        case "again" if first:
            return Delay(0, costs_attempt=True, fields={"failedReason": "once"})
        case "defers" if b"put off" not in lease.job.fields:
            return Delay(5, costs_attempt=False, fields={"put off": "once"})
        case "held" if run == 1:
            return HandBack(0.02)
        case "fails":
            return Fail("never")
    return Complete()


async def schedule_two(queue: Bench) -> None:
    """Let BullMQ's own package set up a scheduler, whose second job is made when the first is claimed."""
    assert isinstance(queue.url, str)
    name = queue.queue.name
    theirs = Queue(name.name, {"prefix": name.prefix, "connection": queue.url})
    await theirs.upsertJobScheduler("tick", {"every": 30, "limit": 2}, "job")
    await theirs.close()


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until it goes well, as a producer may: the ids are its own."""
    while True:
        try:
            return await ask()
        except RedisUnavailable:
            continue


async def settlements(queue: Bench) -> Counter[str]:
    entries = await queue.redis.call("XRANGE", queue.queue.name.key("events"), "-", "+")
    events = [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in entries]
    settled = [event[b"jobId"].decode() for event in events if event[b"event"] in (b"completed", b"failed")]
    return Counter(map(kind_of, settled))


async def leftovers(queue: Bench) -> list[str]:
    left = [lock.decode() for lock in await queue.redis.call("KEYS", queue.queue.name.key("*:lock"))]
    for place in ("wait", "active", "delayed", "prioritized"):
        left += await queue.ids(place)
    return left


@pytest.mark.parametrize("place", When)
async def test_a_connection_reset_at_any_command_loses_and_doubles_nothing(redis_url: str, place: When) -> None:
    aftermath, commands, _ = await play(redis_url, QueueName("whole", "events"), lambda _: None)
    assert aftermath == AS_IT_SHOULD_BE
    few = asyncio.Semaphore(SEVERAL_AT_ONCE)

    async def reset_at(kind: str, nth: int) -> list[str]:
        async with few:
            aftermath, _, victims = await play(redis_url, QueueName(f"{kind}-{nth}", "events"), at(kind, nth, place))
        assert aftermath == AS_IT_SHOULD_BE, f"reset at {kind} {nth}"
        return victims

    numbered = [(kind, nth + 1) for kind, number in Counter(commands).items() for nth in range(number)]
    broken = await asyncio.gather(*(reset_at(kind, nth) for kind, nth in numbered))
    victims = Counter(name for names in broken for name in names)
    assert victims.keys() >= set(commands) - BY_THE_CLOCK
    assert {"CLAIM", "FINISH", "DELAY", "RETRY_NOW", "HAND_BACK", "NEXT_OF_SCHEDULE", "ADD_STANDARD"} <= victims.keys()
    assert victims.total() > len(commands) / 2


def at(kind: str, nth: int, place: When) -> Cuts:
    count = itertools.count(1)
    return lambda command: place if name_of(command) == kind and next(count) == nth else None


@pytest.mark.parametrize("every", [9, 10, 11, 12, 13, 15, 17])
async def test_a_connection_reset_again_and_again_loses_and_doubles_nothing(redis_url: str, every: int) -> None:
    """Four of the commands are each new connection's own."""
    places = list(When)

    def cuts(command: Command) -> When | None:
        turn, rest = divmod(command.number, every)
        return None if rest else places[turn % len(places)]

    aftermath, _, victims = await play(redis_url, QueueName("flapping", "events"), cuts)
    assert aftermath == AS_IT_SHOULD_BE
    assert len(victims) > 2


async def test_a_settlement_whose_answer_is_lost_is_not_made_again_upon_the_next_claim(redis_url: str) -> None:
    """Sent with it was a claim of the same job, whose answer is lost too: the lock is ours again, by another claim."""
    # Not at the first, which may be refused because Redis has yet to learn the script.
    cuts = at("RETRY_NOW", 2, When.AFTER)
    # Nor does a renewal notice in time that the lease is over.
    unaware = replace(PROMPT, renew_seconds=0.5)
    made: list[int] = []

    async def execute(lease: Lease) -> Settlement:
        made.append(lease.job.attempts_made)
        return Delay(0, costs_attempt=True) if len(made) < 3 else Complete()

    async with bench(redis_url) as direct, FaultProxy(redis_url, cuts=cuts, answer_delay=0.05) as proxy:
        await direct.queue.add(NewJob("job", {}, job_id="one"))
        async with bench(proxy.url) as queue, queue.engine(execute, unaware, blocking_url=redis_url):
            await direct.finished(1)
        assert made == [0, 1, 2]
        assert len(proxy.victims) == 1
        assert await settlements(direct) == Counter(one=1)


async def test_a_job_claimed_together_with_others_whose_answers_are_lost_is_at_work_all_the_same(
    redis_url: str,
) -> None:
    """Claims are made one, one, two and four at a time; of the last four one comes through."""
    jobs = [f"job-{n}" for n in range(8)]
    watchful = replace(PROMPT, concurrency=8, renew_seconds=0.02)

    async def execute(lease: Lease) -> Settlement:
        await asyncio.sleep(0.2)  # The job's work, while its engine looks for claims that nobody works at.
        return Complete()

    async with bench(redis_url) as direct, FaultProxy(redis_url, cuts=at("CLAIM", 6, When.BEFORE)) as proxy:
        await direct.queue.add_bulk([NewJob("job", {}, job_id=job) for job in jobs])
        # So that no claim is refused because Redis has yet to learn the script.
        await direct.engine().engine.scripts.hand_back((await claimed(direct)).id)
        async with bench(proxy.url) as queue, queue.engine(execute, watchful):
            await direct.finished(8)
        assert [name_of(command) for command in proxy.victims] == ["CLAIM"]
        assert Counter(queue.ran) == Counter(jobs)


async def claimed(queue: Bench) -> ClaimedJob:
    job = (await queue.engine().engine.scripts.claim()).job
    assert job is not None
    return job


async def test_a_claim_is_an_orphan_when_two_looks_find_the_same_one(redis_url: str) -> None:
    async with bench(redis_url) as queue:
        await queue.queue.add(NewJob("job", {}, job_id="one"))
        running = queue.engine()
        looks, scripts_of_it = running.engine.leases, running.engine.scripts
        await scripts_of_it.claim()
        looks.look_for_orphans()
        await looks._hand_back_orphans()
        await scripts_of_it.hand_back(b"one")
        await scripts_of_it.claim()
        await looks._hand_back_orphans()
        assert await queue.ids("active") == ["one"]
        await looks._hand_back_orphans()
        assert await queue.ids("wait") == ["one"]


async def test_whoever_asks_again_at_once_does_not_keep_the_connection_from_coming_back(redis_url: str) -> None:
    async with FaultProxy(redis_url) as proxy:
        connection = RedisConnection(proxy.url, client_name="impatient")
        await connection.open()
        await connection.call("PING")
        proxy.reset_all()
        for _ in range(5):
            await patiently(lambda: connection.call("PING"))
        assert connection.losses == 1
        await connection.close()
