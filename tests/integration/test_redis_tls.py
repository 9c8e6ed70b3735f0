"""Redis behind TLS, used by a user that may do only what the how-to says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
import trustme

from engine_harness import Bench, bench, until
from redis_servers import PASSWORD, waiting_jobs
from tls_servers import TlsRedis
from worker_runtime.bullmq.engine_options import EngineOptions
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.bullmq.scripts import Limit
from worker_runtime.bullmq.settlement import Complete, Delay, Fail, HandBack, Settlement
from worker_runtime.delivery_state import DeliveryRecords, RateLimits, SuppressedAddresses
from worker_runtime.redis.address import RedisAddress, Server
from worker_runtime.redis.connection import RedisConnection, RedisError, RedisUnavailable
from worker_runtime.state import BreakerLimits, BreakerState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from worker_runtime.bullmq.leases import Lease

pytestmark = pytest.mark.needs("redis-server")
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "scale-redis.md"
USER_PASSWORD = "change-me"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedis]:
    with TlsRedis(tmp_path_factory.mktemp("tls") / "redis", trustme.CA()) as started:
        rule = re.search(r"^ACL SETUSER (\S+) (.*?)^```", HOW_TO.read_text(), re.DOTALL | re.MULTILINE)
        assert rule
        assert started.ask("ACL", "SETUSER", rule[1], *rule[2].split()) == "+OK"
        yield started


@pytest.fixture
def trusting(server: TlsRedis, monkeypatch: pytest.MonkeyPatch) -> TlsRedis:
    monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
    return server


def address(server: TlsRedis, host: str = "localhost") -> RedisAddress:
    return RedisAddress(Server(host, server.tls_port, "intelliflow", USER_PASSWORD, tls=True))


@pytest.fixture
async def queue(trusting: TlsRedis) -> AsyncIterator[Bench]:
    trusting.ask("FLUSHALL")
    trusting.ask("ACL", "LOG", "RESET")
    async with bench(address(trusting)) as opened:
        yield opened


async def test_a_worker_needs_no_right_that_the_how_to_does_not_give(queue: Bench, server: TlsRedis) -> None:
    async def execute(lease: Lease) -> Settlement:
        first = lease.job.attempts_made == 0
        match lease.job.name:
            case "retries" if first:
                return Delay(0, costs_attempt=True, fields={"failedReason": "once"})
            case "waits" if first:
                return Delay(20, costs_attempt=True, fields={"failedReason": "once"})
            case "fails":
                return Fail("never")
            case "returned" if queue.ran.count("returned") == 1:
                return HandBack()
        return Complete()

    names = ["plain", "retries", "waits", "fails", "returned"]
    await queue.queue.add_bulk([NewJob(name, {}, job_id=name) for name in names])
    await queue.queue.add(NewJob("late", {}, job_id="late", delay_ms=50))
    await queue.queue.add(NewJob("low", {}, job_id="low", priority=100))
    await queue.queue.pause()
    await queue.queue.resume()
    options = EngineOptions(lock_ms=1_000, renew_seconds=0.1, stalled_interval_ms=200, limit=Limit(2, 50))
    hang = asyncio.Event()
    victim = queue.engine(lambda _: hang.wait(), options, token="victim")  # type: ignore[arg-type,return-value]
    await victim.__aenter__()
    await until(lambda: some_active(queue))
    await victim.die()
    async with queue.engine(execute, options, token="heir"):
        await queue.finished(7)
    await shared_state(queue.redis)
    counts = await queue.queue.counts()
    assert (counts.completed, counts.failed) == (6, 1)
    with redis.Redis(port=server.port, password=PASSWORD) as administrator:
        assert administrator.acl_log() == []


async def some_active(queue: Bench) -> bool:
    return (await queue.queue.counts()).active > 0


async def shared_state(connection: RedisConnection) -> None:
    breaker = BreakerState(connection, "intelliflow", "smtp", BreakerLimits(threshold=1))
    for verb in ("peek", "failed", "restart", "acquire", "succeeded"):
        await breaker.ask(verb, "me")
    records = DeliveryRecords(connection, "intelliflow")
    await records.begin(("tenant", "id", "EMAIL"), "me", 1)
    await records.sent(("tenant", "id", "EMAIL"), "me", "provider's")
    await RateLimits(connection, "intelliflow").take("tenant", 1, 100)
    addresses = SuppressedAddresses(connection, "intelliflow")
    await addresses.add("tenant", "EMAIL", "fingerprint", "OPTED_OUT")
    await addresses.reason("tenant", "EMAIL", "fingerprint")
    await addresses.remove("tenant", "EMAIL", "fingerprint")


@pytest.mark.parametrize("command", [("GET", "another:key"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*")])
async def test_its_user_can_do_no_more_than_it_needs(queue: Bench, command: tuple[str, ...]) -> None:
    with pytest.raises(RedisError, match="NOPERM"):
        await queue.redis.call(*command)


async def test_a_certificate_of_an_unknown_authority_is_no_connection(
    server: TlsRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    await refused(address(server))
    assert "certificate verify failed" in capsys.readouterr().out


async def test_a_certificate_for_another_name_is_no_connection(
    trusting: TlsRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    await refused(address(trusting, "127.0.0.1"))
    assert "certificate is not valid for '127.0.0.1'" in capsys.readouterr().out


async def test_a_wrong_password_is_no_connection(trusting: TlsRedis, capsys: pytest.CaptureFixture[str]) -> None:
    await refused(RedisAddress(Server("localhost", trusting.tls_port, "intelliflow", "wrong", tls=True)))
    assert "WRONGPASS" in (said := capsys.readouterr().out)
    assert "'wrong'" not in said


async def refused(where: RedisAddress) -> None:
    connection = RedisConnection(where, client_name="t", timeout_seconds=0.5)
    await connection.open()
    with pytest.raises(RedisUnavailable, match=r"within 0\.5 s: "):
        await connection.call("PING")
    await connection.close()


@pytest.mark.parametrize("by_url", [True, False])
async def test_the_settings_lead_there(queue: Bench, trusting: TlsRedis, *, by_url: bool) -> None:
    await queue.queue.add(NewJob("job", {}))
    parts = {
        "REDIS_TLS": "true",
        "REDIS_HOST": "localhost",
        "REDIS_PORT": str(trusting.tls_port),
        "REDIS_USERNAME": "intelliflow",
        "REDIS_PASSWORD": USER_PASSWORD,
    }
    url = f"rediss://intelliflow:{USER_PASSWORD}@localhost:{trusting.tls_port}/0"
    rows = await asyncio.to_thread(waiting_jobs, {"REDIS_URL": url} if by_url else parts)
    assert rows["intelliflow:events"] == 1
