"""A master that is made a replica while the engine works, and made the master again: what a tired operator does."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from engine_harness import QUICK, Bench, bench, until
from redis_servers import PASSWORD, ConfiguredRedis
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.bullmq.settlement import Complete, Settlement
from worker_runtime.redis.connection import RedisUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from embedded_stack import RedisServer
    from worker_runtime.bullmq.leases import Lease

DEMOTED_SECONDS = 3
JOBS = [f"job-{n}" for n in range(1_000)]


async def rest(lease: Lease) -> Settlement:
    await asyncio.sleep(0.01)  # The job's work, so that the change falls into the middle.
    return Complete()


async def completed(queue: Bench, number: int) -> bool:
    try:
        return (await queue.queue.counts()).completed >= number
    except RedisUnavailable:
        return False


@pytest.mark.parametrize("lock_ms", [1_000, 10_000])
async def test_while_the_master_is_a_replica_work_waits_and_then_goes_on(own_redis: RedisServer, lock_ms: int) -> None:
    """Also when every lock has expired meanwhile: they are taken back before anybody else can."""
    async with bench(own_redis.url) as queue:
        await queue.queue.add_bulk([NewJob("job", {}, job_id=job) for job in JOBS])
        async with queue.engine(rest, replace(QUICK, lock_ms=lock_ms)) as running:
            await until(lambda: completed(queue, 200))
            assert own_redis.ask("REPLICAOF", "127.0.0.1", "1") == "+OK"
            await until(lambda: several_failures(queue))
            begun = len(queue.ran)
            await asyncio.sleep(DEMOTED_SECONDS)  # How long it is a replica.
            assert len(queue.ran) == begun
            assert running.engine.in_flight == QUICK.concurrency
            with pytest.raises(RedisUnavailable, match="READONLY"):
                await queue.queue.add(NewJob("job", {}))
            assert own_redis.ask("REPLICAOF", "NO", "ONE") == "+OK"
            await until(lambda: completed(queue, len(JOBS)), within=30)
        assert await queue.ids("active") == []
        assert Counter(queue.ran) == Counter(JOBS)
        assert queue.tally.seen.keys() == {"redis_failed"}


async def several_failures(queue: Bench) -> bool:
    return queue.tally.seen["redis_failed"] > 5


async def test_two_servers_that_change_places_and_change_back_lose_nothing_that_both_had(tmp_path: Path) -> None:
    common = {"repl_diskless_sync_delay": 0, "masterauth": PASSWORD}
    with (
        ConfiguredRedis(tmp_path / "first", **common) as first,
        ConfiguredRedis(tmp_path / "second", **common) as second,
    ):
        follow(second, first)
        await until(lambda: follows(second))
        async with bench(first.url) as queue:
            await queue.queue.add_bulk([NewJob("job", {}, job_id=job) for job in JOBS])
            async with queue.engine(rest, replace(QUICK, lock_ms=10_000)):
                await until(lambda: completed(queue, 200))
                assert second.ask("REPLICAOF", "NO", "ONE") == "+OK"
                follow(first, second)
                await until(lambda: several_failures(queue))
                await asyncio.sleep(DEMOTED_SECONDS)  # How long they have changed places.
                assert first.ask("REPLICAOF", "NO", "ONE") == "+OK"
                follow(second, first)
                await until(lambda: completed(queue, len(JOBS)), within=30)
            assert await queue.ids("active") == []
            runs = Counter(queue.ran)
            assert runs.keys() == set(JOBS)
            # What the first accepted between the two commands, the second never had, and the first forgot it too.
            assert runs.total() - len(runs) <= 100


def follow(follower: RedisServer, leader: RedisServer) -> None:
    assert follower.ask("REPLICAOF", "127.0.0.1", str(leader.port)) == "+OK"


async def follows(replica: RedisServer) -> bool:
    return "master_link_status:up" in replica.ask("INFO", "replication")
