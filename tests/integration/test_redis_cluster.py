"""Three real masters: what a queue does on one server it does on a cluster, also while slots and servers move."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import redis
from bullmq import Queue
from redis.asyncio.cluster import RedisCluster

from engine_harness import QUICK, Bench, bench, until
from notifications_worker.suppression import fingerprint
from redis_servers import PASSWORD, Cluster, ConfiguredRedis, cluster, waiting_jobs
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.bullmq.settlement import Complete, Delay, Fail, Settlement
from worker_runtime.bullmq.waiter import MarkerWaiter
from worker_runtime.delivery_state import SuppressedAddresses
from worker_runtime.redis.cluster import ClusterConnection, slot_of
from worker_runtime.redis.connection import RedisUnavailable
from worker_runtime.state import BreakerLimits, BreakerPosition, BreakerState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from worker_runtime.bullmq.leases import Lease

pytestmark = pytest.mark.timeout(120)
STEADY = replace(QUICK, lock_ms=10_000)
TAGGED = QueueName("{intelliflow}", "events")


@pytest.fixture(scope="module")
def three_masters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture
async def servers(three_masters: Cluster) -> Cluster:
    await three_masters.formed()
    for node in three_masters.nodes:
        node.ask("FLUSHALL")
    return three_masters


@pytest.fixture
async def queue(servers: Cluster) -> AsyncIterator[Bench]:
    async with bench(servers.address, TAGGED) as opened:
        yield opened


async def add(queue: Bench, number: int) -> None:
    await queue.queue.add_bulk([NewJob("job", {}, job_id=f"job-{n}") for n in range(number)])


async def completed(queue: Bench, number: int) -> bool:
    try:
        return (await queue.queue.counts()).completed >= number
    except RedisUnavailable:
        return False


async def rest(lease: Lease) -> Settlement:
    await asyncio.sleep(0.005)  # The job's work, so that what happens meanwhile falls into the middle.
    return Complete()


async def test_jobs_are_added_in_bulk_delayed_retried_buried_and_done(queue: Bench) -> None:
    async def execute(lease: Lease) -> Settlement:
        match lease.job.name:
            case "retries" if lease.job.attempts_made == 0:
                return Delay(50, costs_attempt=True, fields={"failedReason": "once"})
            case "fails":
                return Fail("never")
        return Complete()

    await queue.queue.add(NewJob("late", {}, job_id="late", delay_ms=100))
    await queue.queue.add(NewJob("retries", {}, job_id="retries"))
    await queue.queue.add(NewJob("fails", {}, job_id="fails", priority=5))
    added = await queue.queue.add_bulk([NewJob("job", {}, job_id=f"job-{n}") for n in range(1_200)])
    assert added == [f"job-{n}" for n in range(1_200)]
    assert await queue.queue.add_bulk([NewJob("job", {}, job_id="job-7")]) == ["job-7"]
    async with queue.engine(execute):
        await queue.finished(1_203)
    assert Counter(queue.ran) == Counter(["late", "retries", "retries", "fails", *added])
    counts = await queue.queue.counts()
    assert (counts.completed, counts.failed, counts.active) == (1_202, 1, 0)


async def test_each_queue_may_live_on_a_server_of_its_own(servers: Cluster) -> None:
    names = [QueueName(f"{{{tag}}}", "events") for tag in tags_of_each_server(servers)]
    async with contextlib.AsyncExitStack() as stack:
        for name in names:
            queue = await stack.enter_async_context(bench(servers.address, name))
            await stack.enter_async_context(queue.engine())
            await add(queue, 50)
            await queue.finished(50)
    for node, name in zip(servers.nodes, names, strict=True):
        assert node.ask("EXISTS", name.key("completed")) == ":1"


def tags_of_each_server(servers: Cluster) -> list[str]:
    found: dict[int, str] = {}
    for n in range(100):
        found.setdefault(servers.holder(slot_of(f"{{queue-{n}}}")), f"queue-{n}")
    return [found[n] for n in range(3)]


async def test_jobs_of_a_dead_worker_are_recovered(queue: Bench) -> None:
    started = asyncio.Event()

    async def hang(lease: Lease) -> Settlement:
        started.set()
        await asyncio.Event().wait()
        return Complete()

    await add(queue, 1)
    victim = queue.engine(hang, token="victim")
    await victim.__aenter__()
    await asyncio.wait_for(started.wait(), 5)
    await victim.die()
    async with queue.engine(token="heir"):
        await queue.finished(1)
    assert queue.tally.seen["recovered"] == 1


async def test_an_idle_worker_wakes_at_once_and_its_read_is_ended_at_once(queue: Bench, servers: Cluster) -> None:
    blocking = ClusterConnection(servers.address, client_name="blocking", timeout_seconds=10)
    await blocking.open()
    waiter, never = MarkerWaiter(blocking, queue.redis, TAGGED), asyncio.Event()
    for _ in range(20):
        await queue.redis.call("DEL", TAGGED.key("marker"))
        assert not await waiter.wait(0.02, never)
        await asyncio.wait_for(waiter.release(), 0.3)
    await queue.redis.call("DEL", TAGGED.key("marker"))
    asyncio.get_running_loop().call_later(0.1, lambda: asyncio.ensure_future(add(queue, 1)))
    began = time.monotonic()
    assert await waiter.wait(3, never)
    assert time.monotonic() - began < 1
    await blocking.close()


async def test_a_slot_that_moves_under_load_costs_nothing(queue: Bench, servers: Cluster) -> None:
    slot = slot_of(TAGGED.key("wait"))
    source = servers.holder(slot)
    target = (source + 1) % 3
    await add(queue, 2_000)
    async with queue.engine(rest, STEADY):
        for origin, there in ((source, target), (target, source)):
            done = (await queue.queue.counts()).completed
            await until(lambda done=done: completed(queue, done + 200))  # type: ignore[misc]
            migrate(servers, slot, origin, there)
            await until(lambda there=there: served_by(queue, servers, there))  # type: ignore[misc]
        await until(lambda: completed(queue, 2_000), within=30)
    assert Counter(queue.ran) == Counter(f"job-{n}" for n in range(2_000))
    assert await queue.ids("active") == []


def migrate(servers: Cluster, slot: int, source: int, target: int) -> None:
    """Move a slot as a whole, which Valkey 9 can do."""
    moved = ("SLOTSRANGE", str(slot), str(slot), "NODE", servers.ids[target])
    assert servers.nodes[source].ask("CLUSTER", "MIGRATESLOTS", *moved) == "+OK"


async def test_a_schedule_goes_on_while_its_slot_moves(queue: Bench, servers: Cluster) -> None:
    slot = slot_of(TAGGED.key("wait"))
    home = servers.holder(slot)
    away = (home + 1) % 3
    await schedule(servers, every_ms=50, times=20)
    async with queue.engine(options=STEADY):
        for origin, there, turns in ((home, away, 5), (away, home, 10)):
            await until(lambda turns=turns: completed(queue, turns))  # type: ignore[misc]
            migrate(servers, slot, origin, there)
            await until(lambda there=there: served_by(queue, servers, there))  # type: ignore[misc]
        await until(lambda: completed(queue, 20))
    counts = await queue.queue.counts()
    assert (counts.completed, counts.delayed, counts.depth, counts.active) == (20, 0, 0, 0)
    assert len(set(queue.ran)) == len(queue.ran) == 20


async def schedule(servers: Cluster, every_ms: int, times: int) -> None:
    """Let BullMQ's own package set up a scheduler."""
    client = RedisCluster(host="127.0.0.1", port=servers.nodes[0].port, password=PASSWORD, decode_responses=True)
    theirs = Queue(TAGGED.name, {"prefix": TAGGED.prefix, "connection": client})
    await theirs.upsertJobScheduler("tick", {"every": every_ms, "limit": times}, "job")
    await theirs.close()
    await client.aclose()


async def served_by(queue: Bench, servers: Cluster, node: int) -> bool:
    # Asking is what makes the connection learn that the slot moved.
    await completed(queue, 0)
    return (await queue.redis.server_of(TAGGED.key("wait"))).server.port == servers.nodes[node].port


async def test_a_read_that_blocks_follows_its_slot(queue: Bench, servers: Cluster) -> None:
    slot = slot_of(TAGGED.key("wait"))
    source = servers.holder(slot)
    target = (source + 1) % 3
    async with queue.engine():
        await until(lambda: blocked(servers, source))
        migrate(servers, slot, source, target)
        await until(lambda: blocked(servers, target))
        began = time.monotonic()
        await add(queue, 1)
        await queue.finished(1)
        assert time.monotonic() - began < 1
    migrate(servers, slot, target, source)
    await until(lambda: served_by(queue, servers, source))


async def blocked(servers: Cluster, node: int) -> bool:
    return "blocked_clients:1" in servers.nodes[node].ask("INFO", "clients")


async def test_a_key_on_its_way_is_asked_for_where_it_goes(queue: Bench, servers: Cluster) -> None:
    state = BreakerState(queue.redis, "{intelliflow}", "smtp", BreakerLimits(threshold=1))
    there_and_back = moves(servers, slot_of("{intelliflow}"))
    for move in there_and_back:
        async with move:
            assert (await state.ask("failed", "me")).position is BreakerPosition.OPEN
            assert (await state.ask("peek")).position is BreakerPosition.OPEN
            assert await queue.redis.call("DEL", "{intelliflow}:state:breaker:smtp") == 1


async def test_a_slot_that_moves_key_by_key_halts_its_queue_and_costs_nothing(queue: Bench, servers: Cluster) -> None:
    """A script that wants many keys, of which some are never there, is refused whole until the slot has arrived."""
    await add(queue, 600)
    async with queue.engine(rest, STEADY):
        for number, move in enumerate(moves(servers, slot_of("{intelliflow}")), start=1):
            await until(lambda number=number: completed(queue, 200 * number))  # type: ignore[misc]
            async with move:
                with pytest.raises(RedisUnavailable, match="TRYAGAIN"):
                    await queue.queue.add(NewJob("job", {}, job_id="refused"))
        await until(lambda: completed(queue, 600), within=30)
    assert Counter(queue.ran) == Counter(f"job-{n}" for n in range(600))
    assert await queue.ids("active") == []


def moves(servers: Cluster, slot: int) -> tuple[contextlib.AbstractAsyncContextManager[None], ...]:
    """Do twice what `redis-cli --cluster reshard` does to a slot: to the next server, and home again."""
    home = servers.holder(slot)
    away = (home + 1) % 3
    return moving(servers, slot, home, away), moving(servers, slot, away, home)


@contextlib.asynccontextmanager
async def moving(servers: Cluster, slot: int, source: int, target: int) -> AsyncIterator[None]:
    old, new = servers.nodes[source], servers.nodes[target]
    set_slot = ("CLUSTER", "SETSLOT", str(slot))
    assert new.ask(*set_slot, "IMPORTING", servers.ids[source]) == "+OK"
    assert old.ask(*set_slot, "MIGRATING", servers.ids[target]) == "+OK"
    yield
    # In a thread, so that the worker's commands fall between the keys.
    await asyncio.to_thread(move_keys, old.port, new.port, slot)
    for node in (new, old):
        assert node.ask(*set_slot, "NODE", servers.ids[target]) == "+OK"


def move_keys(source: int, target: int, slot: int) -> None:
    with redis.Redis(port=source, password=PASSWORD) as client:
        while keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 5):
            client.execute_command("MIGRATE", "127.0.0.1", target, "", 0, 5000, "AUTH", PASSWORD, "KEYS", *keys)


async def test_a_wrong_map_is_mended_by_the_first_answer(queue: Bench, servers: Cluster) -> None:
    await add(queue, 1)
    connection = queue.redis
    assert isinstance(connection, ClusterConnection)
    holders = connection._holders
    right = holders[slot_of(TAGGED.key("wait"))]
    connection._holders = [server for server in set(holders) if server != right][:1] * len(holders)
    assert (await queue.queue.counts()).waiting == 1
    assert (await connection.server_of(TAGGED.key("wait"))).server == right


async def test_a_killed_server_comes_back_to_a_worker_that_goes_on(queue: Bench, servers: Cluster) -> None:
    node = servers.nodes[servers.holder(slot_of(TAGGED.key("wait")))]
    await add(queue, 1_000)
    async with queue.engine(rest, STEADY):
        await until(lambda: completed(queue, 200))
        node.kill()
        with pytest.raises((RedisUnavailable, TimeoutError)):
            async with asyncio.timeout(0.5):
                await queue.redis.call("PING")
        assert queue.tally.seen["redis_failed"] > 0
        node.start()
        await until(lambda: completed(queue, 300), within=15)
        await until(lambda: completed(queue, 1_000), within=30)
    assert await queue.ids("active") == []
    runs = Counter(queue.ran)
    assert len(runs) == 1_000
    # Those that were settled within the last fsync interval may have been forgotten by Redis, and only those.
    assert sum(count > 1 for count in runs.values()) <= 400


async def test_without_a_cluster_a_call_fails_in_bounded_time_and_says_where(servers: Cluster) -> None:
    address = replace(servers.address, server=servers.address.server.at("127.0.0.1", 1))
    nobody = ClusterConnection(address, client_name="t", timeout_seconds=0.3)
    await nobody.open()
    assert not nobody.connected
    for command in (("PING",), ("GET", "key")):
        with pytest.raises(RedisUnavailable, match=r"cluster at 127\.0\.0\.1:1 within"):
            await nobody.call(*command)
    await nobody.close()
    with pytest.raises(RedisUnavailable, match="closed"):
        await nobody.call("GET", "key")


async def test_the_settings_lead_to_the_cluster(queue: Bench, servers: Cluster) -> None:
    await add(queue, 3)
    assert (await asyncio.to_thread(waiting_jobs, servers.variables))["{intelliflow}:events"] == 3


async def test_a_replica_takes_over_under_load_and_nothing_is_lost(tmp_path: Path) -> None:
    with cluster(tmp_path) as servers:
        await servers.formed()
        home = servers.holder(slot_of("{intelliflow}"))
        with servers.replica_of(home, tmp_path / "replica") as replica:
            await until(lambda: follows(replica), within=20)
            async with bench(servers.address, TAGGED) as queue:
                await add(queue, 1_000)
                async with queue.engine(rest, STEADY):
                    await until(lambda: completed(queue, 200))
                    # Lets the replica catch up first; a master that dies may lose its tail, see the Sentinels' tests.
                    assert replica.ask("CLUSTER", "FAILOVER") == "+OK"
                    await until(lambda: completed(queue, 1_000), within=30)
                assert (await queue.redis.server_of(TAGGED.key("wait"))).server.port == replica.port
                assert Counter(queue.ran) == Counter(f"job-{n}" for n in range(1_000))
                servers.nodes[home].kill()
                await queue.redis.call("PING")


async def follows(replica: ConfiguredRedis) -> bool:
    return "master_link_status:up" in replica.ask("INFO", "replication")


async def test_a_person_is_found_and_erased_on_every_server(servers: Cluster) -> None:
    variables = {**servers.variables, "QUEUE_SMS_PREFIX": "{other}"}
    queues = [QueueName("{intelliflow}:notifications", "email"), QueueName("{other}", "sms")]
    assert len({servers.holder(slot_of(queue.key("wait"))) for queue in queues}) == 2
    redis = ClusterConnection(servers.address, client_name="test")
    await redis.open()
    for queue in queues:
        data = {"recipient": {"email": "ada@example.com"}}
        await JobQueue(redis, queue).add_bulk([NewJob("send", data, job_id=f"n-{n}") for n in range(30)])
    await SuppressedAddresses(redis, "{intelliflow}").add("t-1", "EMAIL", fingerprint("ada@example.com"), "GONE")

    async def run(line: str) -> list[dict[str, object]]:
        command = [sys.executable, "-m", "worker_ops", *line.split(), "-o", "json"]
        environment = {**os.environ, **variables}
        done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, object]] = json.loads(done.stdout)
        return rows

    erased = await run("person erase --email ada@example.com --apply")
    assert {row["place"]: row["erased"] for row in erased} == {f"{queue.label} wait": 30 for queue in queues}
    assert [row["reason"] for row in await run("suppressions list")] == ["GONE"]
    for queue in queues:
        assert await JobQueue(redis, queue).depth() == 0
    await redis.close()
