"""The notifications-worker as the process it is, delivering webhooks: signed, in order, limited, once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest_asyncio
from standardwebhooks import Webhook

from engine_harness import until
from scripted_http import HANG, ScriptedHttp, answer
from webhook_desk import FALLBACK, SECRET
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUEUE = QueueName("intelliflow:notifications", "webhook")
VARIABLES = {
    "QUEUE_LOCK_DURATION_MS": "1000",
    "QUEUE_STALLED_INTERVAL_MS": "300",
    "RETRY_WEBHOOK_DELAYS_MS": "50",
    "QUEUE_RATE_LIMIT_WEBHOOK_MAX": "100000",
    "ENABLE_WEBHOOK": "true",
    "ENABLE_EMAIL": "false",
    "WEBHOOK_SIGNING_SECRET": FALLBACK,
    "EGRESS_ALLOWED_CIDRS": "127.0.0.0/8",
    "HEALTH_PORT": "0",
}


@pytest_asyncio.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    redis = RedisConnection(redis_url, client_name="test")
    await redis.open()
    yield JobQueue(redis, QUEUE)
    await redis.close()


@asynccontextmanager
async def worker(redis_url: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "REDIS_URL": redis_url, **VARIABLES, **variables}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "notifications_worker", env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            await process.wait()


def hook(number: int, **recipient: str) -> NewJob:
    payload = {
        "notificationId": f"n-{number}",
        "tenantId": "t-1",
        "channel": "WEBHOOK",
        "recipient": recipient,
        "content": {"body": json.dumps({"number": number})},
    }
    return NewJob("send", payload, job_id=f"n-{number}")


async def register(database_url: str, url: str, **columns: Any) -> str:
    columns = {"tenant_id": "t-1", "url": url, "secret": SECRET} | columns
    values = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    connection = await asyncpg.connect(database_url)
    try:
        row = f"INSERT INTO tenant_webhook_endpoint ({', '.join(columns)}) VALUES ({values}) RETURNING id::text"
        return str(await connection.fetchval(row, *columns.values()))
    finally:
        await connection.close()


async def finished(queue: JobQueue, *, completed: int = 0, failed: int = 0) -> bool:
    counts = await queue.counts()
    return (counts.completed, counts.failed) == (completed, failed)


async def test_a_job_with_a_bare_url_becomes_a_signed_webhook_without_a_database(
    redis_url: str, queue: JobQueue
) -> None:
    async with ScriptedHttp() as server, worker(redis_url):
        server.will(answer(500))
        await queue.add(hook(1, webhookUrl=server.url))
        await until(lambda: finished(queue, completed=1), 30)

    assert [seen.body for seen in server.requests] == [b'{"number": 1}'] * 2
    assert {seen.headers["webhook-id"] for seen in server.requests} == {"n-1"}
    for seen in server.requests:
        Webhook(FALLBACK).verify(seen.body, seen.headers)


async def test_three_workers_keep_the_order_of_an_endpoint_that_wants_it(
    redis_url: str, database_url: str, queue: JobQueue
) -> None:
    async with ScriptedHttp() as server, ScriptedHttp() as other:
        ordered = await register(database_url, server.url, ordered=True)
        free = await register(database_url, other.url)
        server.will(answer(500), *[answer()] * 7, answer(500), answer(500))
        await queue.add_bulk([job for n in range(40) for job in (hook(n, id=ordered), hook(1000 + n, id=free))])
        where = {"DATABASE_URL": database_url}
        async with worker(redis_url, **where), worker(redis_url, **where), worker(redis_url, **where):
            await until(lambda: finished(queue, completed=80), 90)

    numbers = [json.loads(seen.body)["number"] for seen in server.requests]
    assert [number for place, number in enumerate(numbers) if number not in numbers[place + 1 :]] == list(range(40))
    assert numbers == sorted(numbers)
    assert len(numbers) == 43
    assert sorted(json.loads(seen.body)["number"] for seen in other.requests) == [1000 + n for n in range(40)]


async def test_a_worker_that_is_killed_does_not_bring_an_endpoint_out_of_order(
    redis_url: str, database_url: str, queue: JobQueue
) -> None:
    async with ScriptedHttp() as server:
        ordered = await register(database_url, server.url, ordered=True)
        server.will(*[answer()] * 4, HANG)
        where = {"DATABASE_URL": database_url, "QUEUE_CONCURRENCY": "3"}
        async with worker(redis_url, **where) as first:
            await queue.add_bulk([hook(n, id=ordered) for n in range(20)])
            await until(lambda: arrived(server, 5), 40)
            async with worker(redis_url, **where), worker(redis_url, **where):
                first.kill()
                await first.wait()
                await until(lambda: finished(queue, completed=20), 90)

    numbers = [json.loads(seen.body)["number"] for seen in server.requests]
    assert list(dict.fromkeys(numbers)) == list(range(20))


async def arrived(server: ScriptedHttp, number: int) -> bool:
    return len(server.requests) >= number


async def test_an_endpoint_gets_no_more_a_second_than_it_wants(
    redis_url: str, database_url: str, queue: JobQueue
) -> None:
    async with ScriptedHttp() as server:
        slow = await register(database_url, server.url, rate_per_second=5.0)
        await queue.add_bulk([hook(n, id=slow) for n in range(15)])
        async with worker(redis_url, DATABASE_URL=database_url), worker(redis_url, DATABASE_URL=database_url):
            await until(lambda: finished(queue, completed=15), 60)

    moments = sorted(seen.at for seen in server.requests)
    assert len(moments) == 15
    # Each sixth comes a second after the first of its five; a tenth of that is what the way may have shortened.
    assert all(later - earlier > 0.9 for earlier, later in zip(moments, moments[5:], strict=False))


async def test_killed_while_the_receiver_thinks_the_worker_sends_it_again_as_the_same_message(
    redis_url: str, database_url: str, queue: JobQueue
) -> None:
    async with ScriptedHttp() as server:
        endpoint = await register(database_url, server.url)
        server.will(HANG)
        async with worker(redis_url, DATABASE_URL=database_url) as first:
            await queue.add(hook(1, id=endpoint))
            async with asyncio.timeout(30):
                await server.arrived.wait()
            first.kill()
            await first.wait()
        async with worker(redis_url, DATABASE_URL=database_url):
            await until(lambda: finished(queue, completed=1), 40)

    assert [seen.headers["webhook-id"] for seen in server.requests] == ["n-1", "n-1"]


async def test_a_gone_endpoint_is_disabled_and_an_event_says_so(
    redis_url: str, database_url: str, queue: JobQueue
) -> None:
    async with ScriptedHttp() as server, worker(redis_url, DATABASE_URL=database_url):
        server.always(answer(410))
        endpoint = await register(database_url, server.url)
        await queue.add(hook(1, id=endpoint))
        await until(lambda: finished(queue, failed=1), 30)
        await queue.add(hook(2, id=endpoint))
        await until(lambda: finished(queue, failed=2), 30)
        connection = await asyncpg.connect(database_url)
        events = await connection.fetch("SELECT event_type, aggregate_id FROM domain_event_outbox")
        said = await connection.fetchrow("SELECT status, code, signed_by FROM notification_attempt")
        await connection.close()

    assert [tuple(event) for event in events] == [("webhook.endpoint_disabled", endpoint)]
    assert (said["status"], said["code"], len(said["signed_by"])) == (410, "ENDPOINT_GONE", 1)
    assert len(server.requests) == 1
