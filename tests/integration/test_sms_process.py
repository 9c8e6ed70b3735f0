"""The notifications-worker as the process it is, sending SMS: accepted in silence, killed, failed over, called back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio

from embedded_stack.ports import free_port
from embedded_stack.sms_server import (
    ACCEPT_AND_CLOSE,
    ACCEPT_AND_FAIL,
    ACCEPT_AND_HANG,
    Answer,
    SmsServer,
)
from engine_harness import until
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

QUEUE = QueueName("intelliflow:notifications", "sms")
QUICK = {
    "QUEUE_LOCK_DURATION_MS": "1000",
    "QUEUE_STALLED_INTERVAL_MS": "300",
    "RETRY_SMS_DELAYS_MS": "50",
    "CIRCUIT_BREAKER_RESET_TIMEOUT_MS": "500",
    "ENABLE_EMAIL": "false",
}
NUMBER = "+15005550010"


@pytest.fixture
def company() -> Iterator[SmsServer]:
    with SmsServer() as server:
        yield server


@pytest.fixture
def other_company() -> Iterator[SmsServer]:
    with SmsServer() as server:
        yield server


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
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "notifications_worker", env=environment, stdout=asyncio.subprocess.PIPE
    )
    reading = asyncio.create_task(process.stdout.read() if process.stdout else asyncio.sleep(0, b""))
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            said = await reading
            await process.wait()
        assert NUMBER[1:] not in said.decode()
        assert "wombat" not in said.decode()


def at(company: SmsServer, **more: str) -> dict[str, str]:
    return {
        "ENABLE_SMS": "true",
        "SMS_PROVIDER": "twilio",
        "SMS_FROM": "+15005550006",
        "TWILIO_ACCOUNT_SID": company.account_sid,
        "TWILIO_AUTH_TOKEN": company.auth_token,
        "TWILIO_API_BASE_URL": company.url,
        **more,
    }


def behind(other: SmsServer) -> dict[str, str]:
    return {
        "SMS_FAILOVER_PROVIDER": "messagebird",
        "MESSAGEBIRD_ACCESS_KEY": other.access_key,
        "MESSAGEBIRD_API_BASE_URL": other.url,
    }


def notification(number: int, **changes: Any) -> NewJob:
    payload = {
        "notificationId": f"n-{number}",
        "tenantId": "t-1",
        "channel": "SMS",
        "recipient": {"phone": NUMBER},
        "content": {"body": f"Your code is wombat-{number}"},
    }
    return NewJob("send", payload | changes, job_id=f"n-{number}")


async def finished(queue: JobQueue, *, completed: int = 0, failed: int = 0) -> bool:
    counts = await queue.counts()
    return (counts.completed, counts.failed) == (completed, failed)


async def field(redis: RedisConnection, job_id: str, name: str) -> str:
    return ((await redis.call("HGET", QUEUE.key(job_id), name)) or b"").decode()


async def result(redis: RedisConnection, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await field(redis, job_id, "returnvalue"))
    return found


async def test_a_job_becomes_a_text(
    redis_url: str, redis: RedisConnection, queue: JobQueue, company: SmsServer
) -> None:
    async with worker(redis_url, **at(company)):
        await queue.add(notification(1))
        [text] = await company.arrived(1, seconds=30)
        await until(lambda: finished(queue, completed=1), 20)

    assert (text.to, text.body) == (NUMBER, "Your code is wombat-1")
    told = await result(redis, "n-1")
    assert (told["success"], told["providerMessageId"]) == (True, text.sid)


async def test_what_was_accepted_in_silence_is_looked_up_and_not_sent_again(
    redis_url: str, redis: RedisConnection, queue: JobQueue, company: SmsServer
) -> None:
    company.will(ACCEPT_AND_CLOSE, ACCEPT_AND_FAIL, ACCEPT_AND_CLOSE)
    async with worker(redis_url, **at(company)):
        for number in range(3):
            await queue.add(notification(number))
        await until(lambda: finished(queue, completed=3), 60)

    texts = {text.body: text.sid for text in company.messages}
    assert len(company.messages) == len(texts) == 3
    for number in range(3):
        assert (await result(redis, f"n-{number}"))["providerMessageId"] == texts[f"Your code is wombat-{number}"]
        assert await field(redis, f"n-{number}", "atm") == "1"


async def test_killed_after_the_company_accepted_the_text_is_found_and_not_sent_again(
    redis_url: str, redis: RedisConnection, queue: JobQueue, company: SmsServer
) -> None:
    company.will(ACCEPT_AND_HANG)
    await queue.add(notification(1))
    async with worker(redis_url, **at(company)) as victim:
        [text] = await company.arrived(1, seconds=30)
        victim.kill()
        await victim.wait()
    async with worker(redis_url, **at(company)):
        await until(lambda: finished(queue, completed=1), 60)

    assert company.messages == [text]
    assert (await result(redis, "n-1"))["providerMessageId"] == text.sid


async def test_an_outage_burns_nothing_and_ends_by_itself(
    redis_url: str, redis: RedisConnection, queue: JobQueue, company: SmsServer
) -> None:
    company.always(Answer(503))
    for number in range(30):
        await queue.add(notification(number))
    async with worker(redis_url, **at(company)):
        assert await asyncio.to_thread(company.wait_until, lambda me: me.requests >= 6, seconds=30)
        counts = await queue.counts()
        assert counts.waiting + counts.active + counts.delayed == 30
        company.always(None)
        await until(lambda: finished(queue, completed=30), 90)

    assert sorted(text.body for text in company.messages) == sorted(f"Your code is wombat-{n}" for n in range(30))
    assert {await field(redis, f"n-{number}", "atm") for number in range(30)} == {"1"}


async def test_the_other_company_sends_what_the_first_surely_has_not_got(
    redis_url: str, queue: JobQueue, company: SmsServer, other_company: SmsServer
) -> None:
    company.stop()
    async with worker(redis_url, **at(company), **behind(other_company)):
        for number in range(8):
            await queue.add(notification(number))
        await until(lambda: finished(queue, completed=8), 60)
    company.start()

    assert len({text.body for text in other_company.messages}) == len(other_company.messages) == 8


async def test_what_the_first_may_have_got_the_other_company_is_not_asked_for(
    redis_url: str, queue: JobQueue, company: SmsServer, other_company: SmsServer
) -> None:
    company.always(ACCEPT_AND_FAIL)
    # So that the first company's circuit is still open when the text is looked at again.
    circuit = {"CIRCUIT_BREAKER_FAILURE_THRESHOLD": "1", "CIRCUIT_BREAKER_RESET_TIMEOUT_MS": "8000"}
    async with worker(redis_url, **at(company), **behind(other_company), **circuit):
        await queue.add(notification(1))
        await until(lambda: finished(queue, completed=1), 60)

    assert len(company.messages) == 1
    assert not other_company.messages


async def test_a_refused_number_is_no_reason_to_ask_another_company(
    redis_url: str, redis: RedisConnection, queue: JobQueue, company: SmsServer, other_company: SmsServer
) -> None:
    async with worker(redis_url, **at(company), **behind(other_company)):
        await queue.add(notification(1, recipient={"phone": "+15005550004"}))
        await until(lambda: finished(queue, failed=1), 30)
        await queue.add(notification(2, recipient={"phone": "+15005550004"}))
        await until(lambda: finished(queue, failed=2), 30)

    assert not other_company.messages
    assert company.requests == 1  # Who opted out is not asked for twice.
    assert await field(redis, "n-1", "failedReason") == (
        "PROVIDER_REJECTED: twilio answered 400 21610: the recipient opted out of messages from this sender"
    )
    assert (await field(redis, "n-2", "failedReason")).startswith("SUPPRESSED: ")


async def listens(port: int) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as reply:
            return reply.status == 404
    except aiohttp.ClientConnectionError:
        return False


async def test_who_says_stop_gets_no_more_and_who_says_start_does(
    redis_url: str, redis: RedisConnection, queue: JobQueue, company: SmsServer
) -> None:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    inbound = {"From": NUMBER, "To": "+15005550006", "Body": "STOP"}
    async with worker(redis_url, **at(company), CALLBACK_PORT=str(port), PUBLIC_BASE_URL=base):
        await until(lambda: listens(port), 30)
        await queue.add(notification(1))
        [text] = await company.arrived(1, seconds=30)
        assert await asyncio.to_thread(company.report, text.sid, "delivered") == 204
        url = f"{base}/callbacks/twilio/inbound"
        assert await asyncio.to_thread(company.call_back, url, inbound) == 200
        await queue.add(notification(2))
        await until(lambda: finished(queue, completed=1, failed=1), 30)
        assert await asyncio.to_thread(company.call_back, url, inbound | {"Body": "START"}) == 200
        await queue.add(notification(3))
        await until(lambda: finished(queue, completed=2, failed=1), 30)

    assert [one.body for one in company.messages] == ["Your code is wombat-1", "Your code is wombat-3"]
    assert await field(redis, "n-2", "failedReason") == "SUPPRESSED: nothing is sent to this recipient: OPTED_OUT"


async def test_a_wrong_token_keeps_the_backlog_and_says_so(redis_url: str, queue: JobQueue, company: SmsServer) -> None:
    async with worker(redis_url, **at(company) | {"TWILIO_AUTH_TOKEN": "old"}):
        for number in range(20):
            await queue.add(notification(number))
        assert await asyncio.to_thread(company.wait_until, lambda me: me.requests >= 1, seconds=30)
        refused_by = time.monotonic() + 1.0
        await until(lambda: asyncio.sleep(0.05, time.monotonic() > refused_by), 10)  # Time to do harm.
        assert (await queue.counts()).failed == 0
    async with worker(redis_url, **at(company)):
        await until(lambda: finished(queue, completed=20), 60)

    assert len({text.body for text in company.messages}) == len(company.messages) == 20
