"""TLS to Sentinels and to a cluster, whose servers speak it among each other as well."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trustme

from engine_harness import QUICK, Bench, bench, until
from redis_servers import MASTER, PASSWORD, cluster
from tls_servers import ADDRESS, TlsNode, TlsRedis, TlsSentinel
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.bullmq.settlement import Complete, Delay, Settlement
from worker_runtime.redis.address import RedisAddress, Server
from worker_runtime.redis.cluster import slot_of
from worker_runtime.redis.connection import RedisUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from worker_runtime.bullmq.leases import Lease

pytestmark = pytest.mark.needs("redis-server")
STEADY = replace(QUICK, lock_ms=10_000)
JOBS = [f"job-{n}" for n in range(300)]


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    issuer = trustme.CA()
    issuer.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return issuer


async def rest(lease: Lease) -> Settlement:
    await asyncio.sleep(0.01)  # The job's work, so that the change falls into the middle.
    return Complete()


async def completed(queue: Bench, number: int) -> bool:
    try:
        return (await queue.queue.counts()).completed >= number
    except RedisUnavailable:
        return False


async def test_sentinels_behind_tls_are_asked_and_heard(tmp_path: Path, authority: trustme.CA) -> None:
    common = {"tls_replication": "yes", "masterauth": PASSWORD, "repl_diskless_sync_delay": 0}
    with ExitStack() as running:
        master, replica = (
            running.enter_context(TlsRedis(tmp_path / name, authority, ADDRESS, **common))
            for name in ("master", "replica")
        )
        assert replica.ask("REPLICAOF", ADDRESS, str(master.tls_port)) == "+OK"
        await until(lambda: follows(replica))
        sentinel = running.enter_context(TlsSentinel(tmp_path / "sentinel", authority, master))
        await until(lambda: knows_a_replica(sentinel))
        login = Server("nowhere", password=PASSWORD, tls=True)
        async with bench(RedisAddress(login, (sentinel.tls_server,), MASTER)) as queue:
            await queue.queue.add_bulk([NewJob("job", {}, job_id=job) for job in JOBS])
            async with queue.engine(rest, STEADY):
                await until(lambda: completed(queue, 50))
                assert sentinel.ask("SENTINEL", "FAILOVER", MASTER) == "+OK"
                await until(lambda: completed(queue, len(JOBS)), within=30)
            assert queue.redis.server == replica.tls_server
            runs = Counter(queue.ran)
            assert runs.keys() == set(JOBS)
            assert runs.total() - len(runs) <= 20


async def follows(replica: TlsRedis) -> bool:
    return "master_link_status:up" in replica.ask("INFO", "replication")


async def knows_a_replica(sentinel: TlsSentinel) -> bool:
    return "slaves=1" in sentinel.ask("INFO", "sentinel")


async def test_a_cluster_behind_tls_is_worked(tmp_path: Path, authority: trustme.CA) -> None:
    async def execute(lease: Lease) -> Settlement:
        first = lease.job.attempts_made == 0
        return Delay(20, costs_attempt=True) if first and lease.job.name == "again" else Complete()

    with cluster(tmp_path, partial(TlsNode, authority=authority)) as servers:
        await servers.formed()
        first = servers.nodes[0]
        assert isinstance(first, TlsNode)
        where = RedisAddress(first.tls_server, cluster=True)
        tags = {servers.holder(slot_of(f"{{queue-{n}}}")): f"queue-{n}" for n in range(50)}
        for holder, tag in tags.items():
            name = QueueName(f"{{{tag}}}", "events")
            async with bench(where, name) as queue, queue.engine(execute, STEADY):
                await queue.queue.add_bulk([NewJob("again", {}, job_id=job) for job in JOBS[:100]])
                await queue.queue.add(NewJob("job", {}, job_id="late", delay_ms=50))
                await queue.finished(101)
                assert Counter(queue.ran) == Counter([*JOBS[:100], *JOBS[:100], "late"])
            assert servers.nodes[holder].ask("EXISTS", name.key("completed")) == ":1"
        assert len(tags) == 3
