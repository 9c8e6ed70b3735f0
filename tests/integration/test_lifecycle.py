"""Starting and stopping, with the processes, signals and servers that production has."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from embedded_stack.ports import free_port
from tiny_process import SCRIPT, tiny
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from embedded_stack import RedisServer

EVENTS = QueueName("intelliflow", "events")


class Producer:
    def __init__(self, redis: RedisConnection) -> None:
        self.redis = redis
        self.queue = JobQueue(redis, EVENTS)

    async def add(self, **task: Any) -> None:
        await self.queue.add(NewJob("task", task, job_id="the-job"))

    async def attempts_made(self) -> int:
        return int(await self.redis.call("HGET", EVENTS.key("the-job"), "atm") or 0)


@asynccontextmanager
async def producing(url: str) -> AsyncIterator[Producer]:
    redis = RedisConnection(url, client_name="test", timeout_seconds=5)
    await redis.open()
    try:
        yield Producer(redis)
    finally:
        await redis.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_signal_ends_an_idle_worker_cleanly(redis_url: str, number: signal.Signals, code: int) -> None:
    async with tiny(redis_url) as worker:
        await worker.said("worker_ready")
        assert (await worker.answers("/health/ready", 200, within=2))["ready"]
        worker.signal(number)
        assert await worker.ended(within=3) == (code, f"{number.name}: drained")
        assert worker.lines[-2]["event"] == "room_closed"


async def test_a_job_in_flight_finishes_within_the_grace_and_health_says_draining(redis_url: str) -> None:
    async with producing(redis_url) as producer, tiny(redis_url, SHUTDOWN_TIMEOUT_MS="20000") as worker:
        await producer.add(do="rest", seconds=2)
        await worker.said("task_started")
        await worker.said("worker_ready")
        worker.signal()
        await worker.said("signal_received")
        body = await worker.answers("/health/ready", 503, within=1)
        assert body["state"] == "draining"
        assert (await worker.get("/health/live"))[0] == 200
        detailed = (await worker.get("/health/detailed"))[1]
        assert [job["jobId"] for job in detailed["inFlight"]] == ["the-job"]
        assert (await worker.ended())[0] == 143
        assert (await producer.queue.counts()).completed == 1


async def test_a_job_past_the_deadline_is_handed_back_with_no_attempt_burnt(redis_url: str) -> None:
    async with producing(redis_url) as producer, tiny(redis_url, SHUTDOWN_TIMEOUT_MS="300") as worker:
        await producer.add(do="rest", seconds=60)
        await worker.said("task_started")
        worker.signal()
        code, reason = await worker.ended(within=3)
        counts = await producer.queue.counts()
        assert (code, counts.waiting, counts.active, await producer.attempts_made()) == (1, 1, 0, 0)
        assert "SHUTDOWN_TIMEOUT_MS=300" in reason


async def test_a_second_signal_hands_back_at_once(redis_url: str) -> None:
    async with producing(redis_url) as producer, tiny(redis_url, SHUTDOWN_TIMEOUT_MS="60000") as worker:
        await producer.add(do="rest", seconds=60)
        await worker.said("task_started")
        worker.signal()
        await worker.said("signal_received")
        worker.signal()
        code, reason = await worker.ended(within=3)
        counts = await producer.queue.counts()
        assert (code, counts.waiting, counts.active, await producer.attempts_made()) == (1, 1, 0, 0)
        assert "second signal" in reason


@pytest.mark.parametrize("task", [{"do": "refuse_to_end", "seconds": 60}, {"do": "block", "seconds": 60}])
async def test_no_handler_can_keep_the_process_alive(redis_url: str, task: dict[str, Any]) -> None:
    async with producing(redis_url) as producer, tiny(redis_url, SHUTDOWN_TIMEOUT_MS="200") as worker:
        await producer.add(**task)
        await worker.said("task_started")
        worker.signal()
        code, reason = await worker.ended(within=6)
        assert code == 1
        assert "deadline exceeded" in reason


async def test_a_blocked_event_loop_is_not_live(redis_url: str) -> None:
    async with producing(redis_url) as producer, tiny(redis_url, LOOP_STALL_LIMIT_MS="1500") as worker:
        await worker.said("worker_ready")
        await producer.add(do="block", seconds=3.5)
        await worker.said("task_started")
        body = await worker.answers("/health/live", 503, within=2.2)
        assert body["reason"] == "event_loop_stalled"
        assert body["loops"]["event-loop"]["limitMs"] == 1500
        assert (await worker.answers("/health/live", 200, within=4))["alive"]


async def test_without_redis_the_start_waits_says_so_and_gives_up(tmp_path: Path) -> None:
    port = free_port()
    async with tiny(f"redis://:hush@127.0.0.1:{port}/0", START_TIMEOUT_MS="2500") as worker:
        line = await worker.said("waiting_for_dependency")
        assert (line["dependency"], line["where"]) == ("redis", f"127.0.0.1:{port}")
        assert (await worker.get("/health/live"))[0] == 200
        assert (await worker.get("/health/startup"))[0] == 503
        status, body = await worker.get("/health/ready")
        assert (status, body["state"]) == (503, "starting")
        code, reason = await worker.ended(within=6)
        assert code == 1
        assert f"redis at 127.0.0.1:{port}" in reason
        assert "START_TIMEOUT_MS=2500" in reason
        assert sum(line["event"] == "waiting_for_dependency" for line in worker.lines) >= 2
        assert "hush" not in str(worker.lines)


async def test_a_wrong_password_is_called_one(own_redis: RedisServer) -> None:
    url = own_redis.url.replace(own_redis.password, "hush")
    async with tiny(url, START_TIMEOUT_MS="2000") as worker:
        code, reason = await worker.ended(within=6)
    assert code == 1
    assert "WRONGPASS" in reason
    assert "hush" not in str(worker.lines)


async def test_a_stop_while_waiting_for_redis_is_a_clean_stop() -> None:
    async with tiny(f"redis://127.0.0.1:{free_port()}/0") as worker:
        await worker.said("waiting_for_dependency")
        worker.signal()
        assert (await worker.ended(within=3))[0] == 143


async def test_redis_may_come_late_go_and_come_again(own_redis: RedisServer) -> None:
    own_redis.stop()
    async with tiny(own_redis.url) as worker:
        await worker.said("waiting_for_dependency")
        await asyncio.to_thread(own_redis.start)
        await worker.answers("/health/ready", 200, within=5)
        for take_away, bring_back in ((own_redis.kill, own_redis.start), (own_redis.freeze, own_redis.thaw)):
            before = await redis_errors(worker)
            await asyncio.to_thread(take_away)
            await worker.answers("/health/ready", 503, within=3)
            assert (await worker.get("/health/live"))[0] == 200
            assert await redis_errors(worker) > before
            await asyncio.to_thread(bring_back)
            returned = time.monotonic()
            async with producing(own_redis.url) as producer:
                await producer.queue.add(NewJob("task", {}))
                while (await producer.queue.counts()).completed == 0:
                    assert time.monotonic() - returned < 5, worker.lines
                    await asyncio.sleep(0.02)  # Redis cannot tell us; asking is the event.
                await producer.redis.call("DEL", EVENTS.key("completed"))
            await worker.answers("/health/ready", 200, within=3)
        worker.signal()
        assert (await worker.ended(within=5))[0] == 143


async def redis_errors(worker: Any) -> float:
    metrics = (await worker.get("/metrics"))[1]
    line = next(line for line in metrics.splitlines() if line.startswith("intelliflow_redis_errors_total{"))
    return float(line.split()[-1])


async def test_a_start_that_fails_says_why(redis_url: str) -> None:
    async with tiny(redis_url, TINY_START="crash") as worker:
        assert await worker.ended() == (1, "the start failed: ValueError: cannot open what I need")


async def test_a_start_that_hangs_ends_at_its_limit_or_with_a_signal(redis_url: str) -> None:
    async with tiny(redis_url, TINY_START="hang", START_TIMEOUT_MS="500") as worker:
        code, reason = await worker.ended()
        assert code == 1
        assert "START_TIMEOUT_MS=500" in reason
    async with tiny(redis_url, TINY_START="hang") as worker:
        await worker.said("health_server_listening")
        worker.signal()
        assert (await worker.ended(within=3))[0] == 143


async def test_a_loop_that_crashes_takes_the_process_down_and_its_siblings_drain(
    redis_url: str, tmp_path: Path
) -> None:
    bomb = tmp_path / "bomb"
    async with producing(redis_url) as producer, tiny(redis_url, TINY_CRASH_FILE=str(bomb)) as worker:
        await producer.add(do="rest", seconds=1)
        await worker.said("task_started")
        bomb.touch()
        assert await worker.ended(within=5) == (1, "loop crasher crashed: ZeroDivisionError: told to crash")
        assert (await producer.queue.counts()).completed == 1


async def test_a_room_that_cannot_be_left_is_a_failure(redis_url: str) -> None:
    async with tiny(redis_url, TINY_START="crash_at_close") as worker:
        await worker.said("worker_ready")
        worker.signal()
        assert await worker.ended(within=3) == (1, "closing failed: ValueError: cannot close what I opened")


async def test_a_port_in_use_is_named(redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with tiny(redis_url, HEALTH_PORT=str(port)) as worker:
            code, reason = await worker.ended()
    assert code == 1
    assert reason.startswith(f"HEALTH_PORT={port}")


async def test_bad_settings_are_all_named_and_stop_the_start(redis_url: str) -> None:
    async with tiny(redis_url, SHUTDOWN_TIMEOUT_MS="abc", QUEUE_CONCURRENCY="0", OPS_TOKEN_FILE="/nowhere") as worker:
        code, reason = await worker.ended()
        problems = [line["problem"] for line in worker.lines if line["event"] == "bad_setting"]
    assert code == 1
    assert reason.startswith("bad configuration")
    assert [problem.split("=")[0].split(":")[0] for problem in problems] == [
        "QUEUE_CONCURRENCY",
        "SHUTDOWN_TIMEOUT_MS",
        "OPS_TOKEN",
    ]


async def test_drain_works_until_the_queue_is_empty(redis_url: str) -> None:
    async with producing(redis_url) as producer:
        await producer.queue.add_bulk([NewJob("task", {"do": "rest", "seconds": 0.01})] * 50)
        async with tiny(redis_url, "--drain") as worker:
            code, _ = await worker.ended()
        counts = await producer.queue.counts()
    assert (code, counts.completed, counts.waiting) == (0, 50, 0)


async def test_probe_and_check_answer_without_disturbing(redis_url: str) -> None:
    port = str(free_port())
    async with tiny(redis_url, HEALTH_PORT=port) as worker:
        await worker.said("worker_ready")
        assert await exit_code("probe", HEALTH_PORT=port) == 0
        assert await exit_code("check") == 0
        assert await exit_code("check", HEALTH_PORT="x") == 1
        worker.signal()
        await worker.ended(within=3)
    assert await exit_code("probe", HEALTH_PORT=port) == 1


async def exit_code(verb: str, **settings: str) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), verb, env=settings, stdout=asyncio.subprocess.DEVNULL
    )
    return await process.wait()
