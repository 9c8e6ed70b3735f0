"""The notifications-worker as the process it is: jobs in, mail out, killed in between."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio

from embedded_stack.ports import free_port
from engine_harness import until
from scripted_smtp import ACCEPT_AND_HANG, ScriptedSmtp
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from embedded_stack import Mailbox

QUEUE = QueueName("intelliflow:notifications", "email")
QUICK = {"QUEUE_LOCK_DURATION_MS": "1000", "QUEUE_STALLED_INTERVAL_MS": "300", "RETRY_EMAIL_DELAYS_MS": "50"}


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(redis_url, client_name="test")
    await connection.open()
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def queue(redis: RedisConnection) -> JobQueue:
    return JobQueue(redis, QUEUE)


@asynccontextmanager
async def worker(redis_url: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "REDIS_URL": redis_url, "HEALTH_PORT": "0", **QUICK, **variables}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "notifications_worker", env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 30)


def at(server: Mailbox | ScriptedSmtp, **variables: str) -> dict[str, str]:
    return {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(server.port), "SMTP_TLS": "off", **variables}


def notification(number: int, **changes: Any) -> NewJob:
    payload = {
        "notificationId": f"n-{number}",
        "tenantId": "t-1",
        "channel": "EMAIL",
        "recipient": {"email": f"lead-{number}@example.com"},
        "content": {"templateId": "lead-welcome", "templateData": {"leadId": f"L-{number}"}},
    }
    return NewJob("send", payload | changes, job_id=f"n-{number}")


async def field(redis: RedisConnection, job_id: str, name: str) -> str:
    return ((await redis.call("HGET", QUEUE.key(job_id), name)) or b"").decode()


async def test_a_job_becomes_a_mail(redis_url: str, redis: RedisConnection, queue: JobQueue, mailbox: Mailbox) -> None:
    async with worker(
        redis_url, SMTP_HOST=mailbox.host, SMTP_PORT=str(mailbox.port), SMTP_CA_FILE=str(mailbox.ca_file)
    ):
        await queue.add(notification(1))
        [mail] = await mailbox.arrived(1, seconds=20)
        await until(lambda: finished(queue, completed=1), 20)

    assert (mail.sender, mail.recipients) == ("noreply@intelliflow.com", ("lead-1@example.com",))
    assert mail.header("X-IntelliFlow-Notification-Id") == "n-1"
    result = json.loads(await field(redis, "n-1", "returnvalue"))
    assert (result["success"], result["providerMessageId"]) == (True, mail.header("Message-ID"))


async def answers_200(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def shows_disabled(url: str) -> bool:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        health = await answer.json()
    assert health["status"] == "healthy"
    report = health["queues"].get(QUEUE.label, {})
    return bool(report.get("disabled")) and report["waiting"] == 1


async def finished(queue: JobQueue, *, completed: int = 0, failed: int = 0) -> bool:
    counts = await queue.counts()
    return (counts.completed, counts.failed) == (completed, failed)


async def test_what_can_never_be_sent_is_a_dead_letter_with_a_reason(
    redis_url: str, redis: RedisConnection, queue: JobQueue
) -> None:
    async with ScriptedSmtp() as server, worker(redis_url, **at(server)):
        server.will("RCPT", "550 5.1.1 <lead-4@example.com> unknown")
        await queue.add(notification(1, recipient={"phone": "+15005550006"}))
        await queue.add(notification(2, recipient={"email": "Ada <ada@example.com>"}))
        await queue.add(notification(3, content={"templateId": "nope"}))
        await queue.add(notification(4))
        await until(lambda: finished(queue, failed=4), 20)

    reasons = [await field(redis, f"n-{number}", "failedReason") for number in range(1, 5)]
    assert reasons == [
        "INVALID_PAYLOAD: recipient.email is missing",
        "INVALID_PAYLOAD: recipient.email: is not one bare e-mail address such as ***@example.com",
        "TEMPLATE_ERROR: there is no template 'nope'; there are lead-assigned, lead-converted, lead-welcome",
        "PROVIDER_REJECTED: the mail server answered 550 5.1.1 to RCPT TO",
    ]


async def test_an_outage_burns_nothing_and_ends_by_itself(
    redis_url: str, redis: RedisConnection, queue: JobQueue
) -> None:
    async with ScriptedSmtp() as server:
        server.always("BANNER", "421 4.3.2 maintenance")
        for number in range(30):
            await queue.add(notification(number))
        limits = {"CIRCUIT_BREAKER_RESET_TIMEOUT_MS": "500", "QUEUE_RATE_LIMIT_EMAIL_MAX": "1000"}
        async with worker(redis_url, **at(server, **limits)):
            await server.reached("BANNER", 5, seconds=20)
            counts = await queue.counts()
            assert counts.waiting + counts.active + counts.delayed == 30
            server.healed()
            await until(lambda: finished(queue, completed=30), 60)

    assert sorted(mail.recipient for mail in server.accepted) == sorted(f"lead-{n}@example.com" for n in range(30))
    assert {await field(redis, f"n-{number}", "atm") for number in range(30)} == {"1"}


@pytest.fixture(params=["redis", "postgres"])
def record(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"DATABASE_URL": request.getfixturevalue("database_url")} if request.param == "postgres" else {}


async def test_killed_between_acceptance_and_record_it_is_sent_again_as_the_same_mail(
    redis_url: str, queue: JobQueue, record: dict[str, str]
) -> None:
    async with ScriptedSmtp() as server:
        server.will("MESSAGE", ACCEPT_AND_HANG)
        await queue.add(notification(1))
        async with worker(redis_url, **at(server, **record)) as doomed:
            await server.reached("MESSAGE", seconds=20)
            doomed.kill()
        async with worker(redis_url, **at(server, **record)):
            await until(lambda: finished(queue, completed=1), 20)

    first, second = server.accepted
    assert first.content == second.content


async def test_bulk_mail_is_not_sent_again_by_whoever_cannot_know(
    redis_url: str, redis: RedisConnection, queue: JobQueue, record: dict[str, str]
) -> None:
    links = {"UNSUBSCRIBE_SECRET": "s" * 32, "PUBLIC_BASE_URL": "https://mail.example.com"}
    async with ScriptedSmtp() as server:
        server.will("MESSAGE", ACCEPT_AND_HANG)
        await queue.add(notification(1, metadata={"category": "marketing"}))
        async with worker(redis_url, **at(server, **record, **links)) as doomed:
            await server.reached("MESSAGE", seconds=20)
            doomed.kill()
        async with worker(redis_url, **at(server, **record, **links)):
            await until(lambda: finished(queue, failed=1), 20)

    assert len(server.accepted) == 1
    assert (await field(redis, "n-1", "failedReason")).startswith("DELIVERY_UNKNOWN: ")


async def test_what_redis_forgot_was_sent_all_the_same(
    redis_url: str, redis: RedisConnection, queue: JobQueue, database_url: str
) -> None:
    async with ScriptedSmtp() as server, worker(redis_url, **at(server, DATABASE_URL=database_url)):
        await queue.add(notification(1))
        await until(lambda: finished(queue, completed=1), 20)
        await redis.call("FLUSHDB")
        await queue.add(notification(1))
        await until(lambda: finished(queue, completed=1), 20)

    assert len(server.accepted) == 1


async def test_a_channel_that_is_off_leaves_its_queue_alone(redis_url: str, queue: JobQueue) -> None:
    async with ScriptedSmtp() as server:
        await queue.add(notification(1))
        port = str(free_port())
        async with worker(redis_url, **at(server, ENABLE_EMAIL="false", HEALTH_PORT=port)):
            await until(lambda: answers_200(f"http://127.0.0.1:{port}/health/ready"), 20)
            await until(lambda: shows_disabled(f"http://127.0.0.1:{port}/health/detailed"), 20)
            counts = await queue.counts()

    assert (counts.waiting, counts.active, counts.completed) == (1, 0, 0)
    assert server.conversations == []
