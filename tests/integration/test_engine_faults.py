"""The queue engine while Redis fails under it. Each test counts: nothing lost, nothing run twice that was settled."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from engine_harness import QUEUE, QUICK, Bench, bench, until
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.bullmq.settlement import Complete, Settlement
from worker_runtime.redis.connection import RedisConnection, RedisError, RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from embedded_stack import RedisServer
    from worker_runtime.bullmq.leases import Lease
    from worker_runtime.bullmq.producer import QueueCounts

STEADY = replace(QUICK, lock_ms=10_000)


@pytest.fixture
async def queue(own_redis: RedisServer) -> AsyncIterator[Bench]:
    async with bench(own_redis.url) as opened:
        yield opened


async def add(queue: Bench, number: int) -> None:
    await queue.queue.add_bulk([NewJob("job", {"n": n}, job_id=f"job-{n}") for n in range(number)])


async def completed(queue: Bench, number: int) -> bool:
    try:
        return (await queue.queue.counts()).completed >= number
    except RedisUnavailable:
        return False


async def test_a_killed_redis_comes_back_to_a_worker_that_goes_on_at_once(queue: Bench, own_redis: RedisServer) -> None:
    async def execute(lease: Lease) -> Settlement:
        await asyncio.sleep(0.005)  # The job's work, so that the kill falls into the middle.
        return Complete()

    await add(queue, 1_000)
    async with queue.engine(execute, STEADY):
        await until(lambda: completed(queue, 200))
        own_redis.kill()
        await until(failed_visibly(queue), within=2)
        own_redis.start()
        back = time.monotonic()
        before = (await patient_counts(queue)).completed
        await until(lambda: completed(queue, before + 20), within=5)
        assert time.monotonic() - back < 2
        await until(lambda: completed(queue, 1_000), within=30)
    assert await queue.ids("active") == []
    runs = Counter(queue.ran)
    assert len(runs) == 1_000
    # Those that were settled within the last fsync interval may have been forgotten by Redis, and only those.
    assert sum(count > 1 for count in runs.values()) <= 400


def failed_visibly(queue: Bench) -> Callable[[], Awaitable[bool]]:
    async def seen() -> bool:
        return queue.tally.seen["redis_failed"] > 0

    return seen


async def patient_counts(queue: Bench) -> QueueCounts:
    while True:
        try:
            return await queue.queue.counts()
        except RedisUnavailable:
            continue


async def test_a_frozen_redis_costs_nothing_but_time(queue: Bench, own_redis: RedisServer) -> None:
    async def execute(lease: Lease) -> Settlement:
        await asyncio.sleep(0.002)  # The job's work.
        return Complete()

    await add(queue, 500)
    async with queue.engine(execute, STEADY):
        await until(lambda: completed(queue, 100))
        own_redis.freeze()
        await until(failed_visibly(queue), within=5)
        own_redis.thaw()
        await until(lambda: completed(queue, 500), within=20)
    assert Counter(queue.ran).total() == len(set(queue.ran)) == 500
    assert await queue.ids("active") == []


async def test_cut_connections_lose_and_double_nothing(queue: Bench, own_redis: RedisServer) -> None:
    """Each cut falls somewhere else: before a claim, between its running and its answer, within a settle."""
    cutter = RedisConnection(own_redis.url, client_name="cutter")
    await cutter.open()
    victim = RedisConnection(own_redis.url, client_name="victim", timeout_seconds=2)
    await victim.open()
    await add(queue, 2_000)
    try:
        async with queue.engine(options=STEADY, redis=victim):
            done = 0
            while done < 2_000:
                await cut(cutter, "victim")
                done = (await queue.queue.counts()).completed
                await asyncio.sleep(0.003)  # So that something happens between two cuts.
        assert len(set(queue.ran)) == 2_000
        assert Counter(queue.ran).total() == 2_000
        assert await queue.ids("active") == []
        assert victim.losses > 5
    finally:
        await victim.close()
        await cutter.close()


async def cut(cutter: RedisConnection, name: str) -> None:
    for line in (await cutter.call("CLIENT", "LIST")).decode().splitlines():
        fields = dict(pair.split("=", 1) for pair in line.split() if "=" in pair)
        if fields["name"] == name:
            try:
                await cutter.call("CLIENT", "KILL", "ID", fields["id"])
            except RedisError:
                continue  # It has gone by itself.


async def test_locks_that_expired_during_an_outage_are_taken_back(queue: Bench, own_redis: RedisServer) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def execute(lease: Lease) -> Settlement:
        started.set()
        await release.wait()
        return Complete()

    await add(queue, 1)
    async with queue.engine(execute, QUICK):
        await asyncio.wait_for(started.wait(), 5)
        await until(lambda: synced(queue))
        own_redis.stop()
        # Longer than the lock of a second lives; Redis keeps its expiry in the append-only file.
        await asyncio.sleep(1.5)
        own_redis.start()
        await until(lambda: locked(queue), within=5)
        release.set()
        await until(lambda: completed(queue, 1), within=5)
    assert queue.ran == ["job-0"]
    assert queue.tally.seen["lease_lost"] == 0


async def synced(queue: Bench) -> bool:
    return bool(await queue.redis.call("EXISTS", QUEUE.key("job-0:lock")))


async def locked(queue: Bench) -> bool:
    try:
        return bool(await queue.redis.call("EXISTS", QUEUE.key("job-0:lock")))
    except RedisUnavailable:
        return False


async def test_a_full_redis_is_waited_out(queue: Bench) -> None:
    await add(queue, 50)
    await queue.redis.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(RedisUnavailable, match="OOM"):
        await queue.queue.add(NewJob("job", {}))
    async with queue.engine(options=STEADY):
        await until(failed_visibly(queue))
        await queue.redis.call("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: completed(queue, 50))
    assert len(queue.ran) == 50


async def test_without_a_server_a_call_fails_in_bounded_time_and_says_where(free_port: int) -> None:
    nobody = RedisConnection(f"redis://127.0.0.1:{free_port}/0", client_name="t", timeout_seconds=0.3)
    await nobody.open()
    try:
        with pytest.raises(RedisUnavailable, match=f"127.0.0.1:{free_port}"):
            await nobody.call("PING")
    finally:
        await nobody.close()


@pytest.fixture
def free_port() -> int:
    from embedded_stack.ports import free_port as choose  # noqa: PLC0415

    return choose()


async def test_a_connection_closed_while_it_opens_is_closed(own_redis: RedisServer) -> None:
    for turns in range(50):
        connection = RedisConnection(own_redis.url, client_name="brief")
        await connection.open()
        for _ in range(turns % 5):
            await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await connection.close()


async def test_a_replica_is_not_asked_again_at_once(queue: Bench, own_redis: RedisServer) -> None:
    async with queue.engine(immediately, STEADY):
        await queue.redis.call("REPLICAOF", "127.0.0.1", 1)
        began, lost = time.monotonic(), queue.redis.losses
        while time.monotonic() - began < 1.5:
            with contextlib.suppress(RedisUnavailable):
                await queue.queue.add(NewJob("job", {}))
            await asyncio.sleep(0.01)
        assert 2 <= queue.redis.losses - lost <= 8
        assert "READONLY" in queue.redis.trouble or queue.redis.connected
        await patiently(queue, "REPLICAOF", "NO", "ONE")
        job = await patiently_add(queue)
        await until(lambda: completed(queue, 1), within=5)
    assert job in queue.ran


async def patiently(queue: Bench, *command: str) -> None:
    while True:
        try:
            await queue.redis.call(*command)
        except RedisUnavailable:
            continue
        return


async def patiently_add(queue: Bench) -> str:
    while True:
        try:
            return await queue.queue.add(NewJob("job", {}))
        except RedisUnavailable:
            continue


async def immediately(_: Lease) -> Settlement:
    return Complete()


async def test_a_name_that_redis_would_refuse_is_made_one_that_it_takes(own_redis: RedisServer) -> None:
    connection = RedisConnection(own_redis.url, client_name="a worker\nof two words")
    await connection.open()
    assert await connection.call("CLIENT", "GETNAME") == b"a-worker-of-two-words"
    await connection.close()
