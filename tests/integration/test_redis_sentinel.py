"""A master dies or steps down, Sentinels name another, and work goes on. Each test counts what was lost: see how-to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from engine_harness import QUEUE, QUICK, Bench, bench, until
from redis_servers import MASTER, Guarded, guarded, waiting_jobs
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.bullmq.settlement import Complete, Settlement
from worker_runtime.redis.connection import RedisConnection, RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from embedded_stack import RedisServer
    from worker_runtime.bullmq.leases import Lease

pytestmark = pytest.mark.timeout(120)
STEADY = replace(QUICK, lock_ms=10_000)


@contextlib.asynccontextmanager
async def watched(directory: Path, **settings: int) -> AsyncIterator[tuple[Guarded, Bench]]:
    with guarded(directory, **settings) as redis:
        await redis.replicated()
        await redis.watched()
        async with bench(redis.address) as queue:
            yield redis, queue


async def add(queue: Bench, name: str, number: int) -> None:
    await queue.queue.add_bulk([NewJob("job", {}, job_id=f"{name}-{n}") for n in range(number)])


async def completed(queue: Bench, number: int) -> bool:
    try:
        return (await queue.queue.counts()).completed >= number
    except RedisUnavailable:
        return False


async def rest(lease: Lease) -> Settlement:
    await asyncio.sleep(0.01)  # The job's work, so that the change falls into the middle.
    return Complete()


async def test_after_the_masters_death_everything_replicated_is_done_on_the_new_one(tmp_path: Path) -> None:
    async with watched(tmp_path) as (redis, queue):
        await add(queue, "job", 2_000)
        await redis.replicated()
        async with queue.engine(rest, STEADY):
            await until(lambda: completed(queue, 200))
            redis.master.kill()
            killed = time.monotonic()
            await until(lambda: completed(queue, 250), within=15)
            assert time.monotonic() - killed < 10  # Most of it is the Sentinels' deliberation.
            await until(lambda: completed(queue, 2_000), within=30)
        assert queue.redis.server.port == redis.replica.port
        assert await queue.ids("active") == []
        runs = Counter(queue.ran)
        assert len(runs) == 2_000
        # What was settled in the last moment and had not reached the replica was done again, and nothing else.
        assert sum(count > 1 for count in runs.values()) <= 100


@pytest.mark.parametrize("needed", [0, 1])
async def test_a_planned_failover_loses_and_doubles_nothing(tmp_path: Path, needed: int) -> None:
    """With a replica required or not: the old master, which serves for ten seconds more, is left before it is replaced.

    Jobs are added all the while; those whose addition was confirmed are there.
    """
    async with watched(tmp_path, min_replicas_to_write=needed) as (redis, queue):
        await add(queue, "job", 1_000)
        async with queue.engine(rest, STEADY):
            await until(lambda: completed(queue, 200))
            assert redis.sentinels[0].ask("SENTINEL", "FAILOVER", MASTER) == "+OK"
            added = await add_until(queue, lambda: moved(queue, redis.replica.port))
            await until(lambda: completed(queue, 1_000 + len(added)), within=40)
        assert await queue.ids("active") == []
        runs = Counter(queue.ran)
        assert runs.keys() >= {f"job-{n}" for n in range(1_000)} | set(added)
        # A replica that is late by more than the Sentinel's tenth of a second would account for a few.
        assert runs.total() - len(runs) <= 20


async def add_until(queue: Bench, condition: Callable[[], Awaitable[bool]]) -> list[str]:
    """Add a job every few milliseconds, and return those whose addition Redis confirmed."""
    added: list[str] = []
    async with asyncio.timeout(20):
        for number in itertools.count():
            if await condition():
                return added
            with contextlib.suppress(RedisUnavailable):
                added.append(await queue.queue.add(NewJob("job", {}, job_id=f"meanwhile-{number}")))
            await asyncio.sleep(0.005)  # Between two jobs of a producer.
    raise AssertionError


async def test_a_sentinel_that_was_away_is_heard_again(tmp_path: Path) -> None:
    async with watched(tmp_path) as (redis, queue):
        await queue.redis.call("PING")
        first = redis.sentinels[0]
        first.kill()
        first.start()
        await redis.watched()
        await until(lambda: listened_to(first), within=20)
        losses = queue.redis.losses
        assert first.ask("SENTINEL", "FAILOVER", MASTER) == "+OK"
        await until(lambda: moved(queue, redis.replica.port), within=20)
        assert queue.redis.losses == losses + 1
        # The old one has not been told yet.
        assert redis.master.ask("ROLE").startswith("*3")


@pytest.mark.parametrize("rights", ["+ping", "+ping +subscribe &*"])
async def test_a_sentinels_user_needs_what_the_how_to_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rights: str
) -> None:
    async with watched(tmp_path) as (redis, _):
        for sentinel in redis.sentinels:
            rule = f"reset on >secret +sentinel|get-master-addr-by-name {rights}"
            assert sentinel.ask("ACL", "SETUSER", "worker", *rule.split()) == "+OK"
        theirs = tuple(replace(one, username="worker", password="secret") for one in redis.address.sentinels)
        connection = RedisConnection(replace(redis.address, sentinels=theirs), client_name="t", timeout_seconds=2)
        await connection.open()
        assert await connection.call("PING") == b"PONG"
        if "+subscribe" in rights:
            await until(lambda: listened_to(redis.sentinels[0], by="worker"))
        else:
            await until(lambda: said(capsys, "sentinel_not_heard", "NOPERM"))
        await connection.close()


async def listened_to(sentinel: RedisServer, by: str = "default") -> bool:
    return any(
        " sub=2 " in client and f" user={by} " in client for client in sentinel.ask("CLIENT", "LIST").split("\n")
    )


async def said(capsys: pytest.CaptureFixture[str], *words: str) -> bool:
    line = capsys.readouterr().out
    return all(word in line for word in words)


async def moved(queue: Bench, port: int) -> bool:
    return queue.redis.connected and queue.redis.server.port == port


@pytest.mark.parametrize("needed", [0, 1])
async def test_jobs_that_only_the_dead_master_had_are_lost_unless_replicas_are_required(
    tmp_path: Path, needed: int
) -> None:
    async with watched(tmp_path, min_replicas_to_write=needed) as (redis, queue):
        await add(queue, "safe", 50)
        await redis.replicated()
        cut_off_replica(redis)
        refused = False
        try:
            await add(queue, "doubtful", 5)
        except RedisUnavailable as error:
            refused = str(error).startswith("NOREPLICAS")
        assert refused == bool(needed)
        redis.master.kill()
        redis.replica.thaw()
        await until(lambda: moved(queue, redis.replica.port), within=20)
        redis.replica.ask("CONFIG", "SET", "min-replicas-to-write", "0")
        async with queue.engine(options=STEADY):
            await until(lambda: completed(queue, 50), within=20)
        # With a replica required, nothing that was accepted is missing; without, what only the master knew is.
        assert Counter(queue.ran) == Counter(f"safe-{n}" for n in range(50))


def cut_off_replica(redis: Guarded) -> None:
    redis.replica.freeze()
    redis.master.ask("CLIENT", "KILL", "TYPE", "replica")


async def test_a_replica_that_a_sentinel_still_calls_master_is_not_used(tmp_path: Path) -> None:
    with guarded(tmp_path) as redis:
        await redis.replicated()
        address = redis.address
        for sentinel in redis.sentinels:
            sentinel.ask("SENTINEL", "REMOVE", MASTER)
            sentinel.ask("SENTINEL", "MONITOR", MASTER, "127.0.0.1", str(redis.replica.port), "2")
            # Without the password it cannot find out.
        connection = RedisConnection(address, client_name="t", timeout_seconds=1)
        await connection.open()
        with pytest.raises(RedisUnavailable, match=f"no connection to Redis at 127.0.0.1:{redis.replica.port}"):
            await connection.call("PING")
        await connection.close()


async def test_a_name_no_sentinel_knows_is_no_connection(tmp_path: Path) -> None:
    with guarded(tmp_path) as redis:
        errors: list[int] = []
        connection = RedisConnection(
            replace(redis.address, master="typo"),
            client_name="t",
            timeout_seconds=0.5,
            on_error=lambda: errors.append(1),
        )
        await connection.open()
        with pytest.raises(RedisUnavailable, match="typo of Sentinel"):
            await connection.call("PING")
        assert errors
        await connection.close()
        with pytest.raises(RedisUnavailable, match="closed"):
            await connection.call("PING")


def test_the_settings_lead_to_the_master(tmp_path: Path) -> None:
    with guarded(tmp_path) as redis:
        redis.master.ask("RPUSH", QUEUE.key("wait"), "some-job")
        assert waiting_jobs(redis.variables)["intelliflow:events"] == 1
