"""Breakers and delivery records as replicas share them, in a real Redis."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from worker_runtime.breaker import Breaker, Breakers, CircuitOpen
from worker_runtime.metrics import Metrics
from worker_runtime.redis.connection import RedisConnection
from worker_runtime.state import BreakerPosition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from embedded_stack import RedisServer

RESET_MS = 150


class Replica:
    """One process's view."""

    def __init__(self, redis: RedisConnection, *, reset_ms: int = RESET_MS, threshold: int = 3) -> None:
        self.metrics = Metrics("test-worker")
        self.breakers = Breakers(
            redis, "intelliflow", self.metrics.dependencies, threshold=threshold, reset_ms=reset_ms
        )
        self.breaker = self.breakers.of("smtp", call_seconds=1.0)

    async def fail(self, times: int = 1) -> None:
        for _ in range(times):
            async with self.breaker.guard() as call:
                call.failed("451 try later")

    async def succeed(self) -> None:
        async with self.breaker.guard():
            pass

    def gauge(self) -> float | None:
        labels = {"worker": "test-worker", "dependency": "smtp"}
        return self.metrics.registry.get_sample_value("intelliflow_circuit_breaker_state", labels)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RedisConnection]:
    redis = RedisConnection(url, client_name="breaker-test", timeout_seconds=2)
    await redis.open()
    try:
        yield redis
    finally:
        await redis.close()


def events(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    return [line["event"] for line in lines if "circuit" in line["event"]]


async def until_open_no_more(breaker: Breaker) -> None:
    """Let the time pass that has to pass."""
    async with asyncio.timeout(5):
        while (seconds := await breaker.open_for()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(seconds)


async def test_consecutive_failures_open_it_for_every_replica_and_a_success_between_counts(redis_url: str) -> None:
    async with connected(redis_url) as redis:
        here, there = Replica(redis, reset_ms=60_000), Replica(redis, reset_ms=60_000)
        await here.fail(2)
        await here.succeed()
        await here.fail(2)
        assert here.breaker.reading.position is BreakerPosition.CLOSED
        await here.fail()
        assert here.gauge() == 2
        await there.breakers.refresh()
        assert there.gauge() == 2
        with pytest.raises(CircuitOpen) as refused:
            await there.succeed()
        assert 55 < refused.value.seconds <= 60
        assert 55 < await there.breaker.open_for() <= 60
        assert there.breaker.health()["state"] == "OPEN"
        assert there.breaker.health()["openUntil"].endswith("Z")


async def test_every_transition_is_logged_with_the_word_circuit(redis_url: str) -> None:
    async with connected(redis_url) as redis:
        replica = Replica(redis)
        with capture_logs() as lines:
            await replica.fail(3)
            await until_open_no_more(replica.breaker)
            await replica.succeed()
        assert events(lines) == ["circuit_failure"] * 3 + ["circuit_open", "circuit_half_open", "circuit_closed"]
        assert replica.gauge() == 0


async def test_a_failed_probe_opens_it_again_for_the_same_time(redis_url: str) -> None:
    async with connected(redis_url) as redis:
        replica = Replica(redis)
        await replica.fail(3)
        await until_open_no_more(replica.breaker)
        await replica.fail()
        assert 0 < await replica.breaker.open_for() <= RESET_MS / 1000


async def test_an_authentication_error_opens_it_at_once(redis_url: str) -> None:
    async with connected(redis_url) as redis:
        replica = Replica(redis)
        async with replica.breaker.guard() as call:
            call.failed_for_good("535 wrong password")
        assert replica.gauge() == 2


async def test_a_new_process_has_an_open_breaker_tried_at_once(redis_url: str) -> None:
    async with connected(redis_url) as redis:
        old, new = Replica(redis, reset_ms=60_000), Replica(redis, reset_ms=60_000)
        await old.fail(3)
        await new.breakers.restart()
        assert new.gauge() == 1
        assert await new.breaker.open_for() == 0
        await new.succeed()
        await old.breakers.refresh()
        assert old.gauge() == 0


async def test_a_call_without_a_verdict_gives_the_probe_to_another(redis_url: str) -> None:
    async with connected(redis_url) as redis:
        replica = Replica(redis)
        await replica.fail(3)
        await until_open_no_more(replica.breaker)
        with pytest.raises(ZeroDivisionError):
            async with replica.breaker.guard():
                raise ZeroDivisionError
        await replica.succeed()
        assert replica.gauge() == 0


async def test_a_dead_prober_loses_its_lease(redis_url: str) -> None:
    async with connected(redis_url) as redis:
        replica = Replica(redis)
        await replica.fail(3)
        await until_open_no_more(replica.breaker)
        await replica.breaker.guard().__aenter__()  # And it never returns.
        with pytest.raises(CircuitOpen):
            await replica.succeed()
        key = "intelliflow:state:breaker:smtp"
        lease_left = int(await redis.call("HGET", key, "probeUntil")) - int((await redis.call("TIME"))[0]) * 1000
        assert 0 < lease_left <= 7_000
        await redis.call("HSET", key, "probeUntil", 1)
        await replica.succeed()
        assert replica.gauge() == 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(min_value=1, max_value=4), st.sampled_from(["succeed", "fail", "no verdict"]))
def test_fifty_concurrent_callers_send_exactly_one_probe(redis_url: str, replicas: int, verdict: str) -> None:
    passed = asyncio.run(race(redis_url, replicas, verdict))
    assert passed == 1


async def race(url: str, number: int, verdict: str) -> int:
    """Let 50 callers of several replicas meet a half-open breaker; return how many of them got through."""
    async with connected(url) as redis:
        await redis.call("FLUSHDB")
        replicas = [Replica(redis, reset_ms=1) for _ in range(number)]
        await replicas[0].fail(3)
        await asyncio.gather(*(replica.breakers.refresh() for replica in replicas))
        await until_open_no_more(replicas[0].breaker)
        everybody_asked = asyncio.Event()
        passed = asked = 0

        async def call(replica: Replica) -> None:
            nonlocal passed, asked
            try:
                async with replica.breaker.guard() as call:
                    passed += 1
                    await everybody_asked.wait()
                    if verdict == "fail":
                        call.failed("still out")
                    if verdict == "no verdict":
                        raise ZeroDivisionError  # noqa: TRY301  this very line is what is tested
            except CircuitOpen:
                asked += 1
                if asked == 49:
                    everybody_asked.set()
            except ZeroDivisionError:
                pass

        async with asyncio.timeout(10):
            await asyncio.gather(*(call(replicas[one % number]) for one in range(50)))
        return passed


async def test_with_redis_away_calls_are_allowed(own_redis: RedisServer) -> None:
    async with connected(own_redis.url) as redis:
        replica = Replica(redis, reset_ms=60_000)
        await replica.fail(3)
        own_redis.kill()
        with capture_logs() as lines:
            await replica.succeed()
            await replica.succeed()
        assert events(lines) == ["circuit_state_unreachable"]


async def test_a_closed_breaker_costs_no_redis_call(own_redis: RedisServer) -> None:
    async with connected(own_redis.url) as redis:
        replica = Replica(redis)
        await replica.succeed()
        before = await calls_served(redis)
        for _ in range(10):
            await replica.succeed()
        assert await calls_served(redis) == before + 1  # The question itself.


async def test_of_endpoints_at_rest_nothing_is_kept_and_nothing_is_lost(redis_url: str) -> None:
    async with connected(redis_url) as redis:
        one, other = Replica(redis), Replica(redis)
        async with one.breakers.of("webhook:1", 1.0).guard():
            await one.breakers.refresh()
            assert [breaker.dependency for breaker in one.breakers] == ["smtp", "webhook:1"]
        await one.breakers.refresh()
        assert [breaker.dependency for breaker in one.breakers] == ["smtp"]

        async with other.breakers.of("webhook:1", 1.0).guard() as call:
            call.failed_for_good("410")
        with pytest.raises(CircuitOpen):
            async with one.breakers.of("webhook:1", 1.0).guard():
                pytest.fail("the other replica knows better")
        await one.breakers.refresh()
        assert [breaker.dependency for breaker in one.breakers] == ["smtp", "webhook:1"]


def scraped(replica: Replica) -> str:
    return replica.metrics.scrape().decode()


async def calls_served(redis: RedisConnection) -> int:
    info: Any = await redis.call("INFO", "stats")
    text = info if isinstance(info, str) else info.decode()
    return int(text.partition("total_commands_processed:")[2].splitlines()[0])


async def test_of_many_endpoints_metrics_and_health_show_the_worst(redis_url: str) -> None:
    async with connected(redis_url) as redis:
        replica = Replica(redis)
        good = replica.breakers.of("webhook:https://good.example", 1.0)
        bad = replica.breakers.of("webhook:https://bad.example", 1.0)
        async with bad.guard() as call:
            call.failed_for_good("410")
        async with good.guard():
            pass
        text = scraped(replica)
        assert 'intelliflow_circuit_breaker_state{dependency="webhook",worker="test-worker"} 2.0' in text
        assert 'intelliflow_circuit_breakers_open{dependency="webhook",worker="test-worker"} 1.0' in text
        assert "example" not in text
        replica.breakers.of("webhook:https://another.example", 1.0)
        assert 'intelliflow_circuit_breaker_state{dependency="webhook",worker="test-worker"} 2.0' in scraped(replica)
        assert replica.breakers.health()["webhook"]["state"] == "OPEN"
