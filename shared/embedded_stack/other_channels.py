"""The first run's other messages: an SMS while the company that sends it is out, and a signed webhook."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import uuid4

from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedded_stack.stack import Neighbours

POLL_SECONDS = 0.05
NUMBER = "+15005550006"


@dataclass(frozen=True)
class Message:
    """A notification that a producer put on its queue, and what has become of it; times are since the epoch."""

    channel: str
    to: str
    job_id: str
    queued_at: float
    attempts: int = 0
    put_off_because: str | None = None
    finished_at: float | None = None
    failed_reason: str | None = None
    accepted_at: float | None = None
    proof: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether it arrived and its job is done."""
        return self.finished_at is not None and self.failed_reason is None and self.accepted_at is not None

    @property
    def stopped_at(self) -> str:
        """Why it is not complete, in a few words."""
        return self.failed_reason or self.put_off_because or "it is not done"

    @property
    def queue(self) -> QueueName:
        """The queue it is on."""
        prefix = os.environ.get("QUEUE_PREFIX") or "intelliflow"
        return QueueName(f"{prefix}:notifications", self.channel.lower())


def queue_messages(redis_url: str, neighbours: Neighbours) -> list[Message]:
    """Put the SMS and the webhook on their queues, as any producer might."""
    return asyncio.run(_queue_messages(redis_url, neighbours))


async def _queue_messages(redis_url: str, neighbours: Neighbours) -> list[Message]:
    sms, hook = str(uuid4()), str(uuid4())
    contents = [
        (Message("SMS", NUMBER, sms, time.time()), {"phone": NUMBER}, "Your viewing is tomorrow at ten."),
        (
            Message("WEBHOOK", neighbours.receiver.url, hook, time.time()),
            {"webhookUrl": neighbours.receiver.url},
            '{"type":"lead.created","data":{"leadId":"lead-1"}}',
        ),
    ]
    redis = RedisConnection(redis_url, client_name="first-run")
    await redis.open()
    try:
        for message, recipient, body in contents:
            payload = {
                "notificationId": message.job_id,
                "tenantId": "first-run",
                "channel": message.channel,
                "recipient": recipient,
                "content": {"body": body},
            }
            await JobQueue(redis, message.queue).add(NewJob("send", payload, job_id=message.job_id))
    finally:
        await redis.close()
    return [message for message, _, _ in contents]


def wait_until_put_off(redis_url: str, messages: Sequence[Message], *, seconds: float) -> None:
    """Block until the SMS has found nobody at home, or its time is over."""
    asyncio.run(_wait_until_put_off(redis_url, messages, time.monotonic() + seconds))


async def _wait_until_put_off(redis_url: str, messages: Sequence[Message], deadline: float) -> None:
    redis = RedisConnection(redis_url, client_name="first-run")
    await redis.open()
    try:
        while time.monotonic() < deadline:
            told = [await _job(redis, message) for message in messages if message.channel == "SMS"]
            if all(message.put_off_because for message in told):
                return
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await redis.close()


def settled(redis_url: str, messages: Sequence[Message], neighbours: Neighbours, *, seconds: float) -> list[Message]:
    """Read what became of them, waiting up to `seconds` for all to be complete."""
    return asyncio.run(_settled(redis_url, messages, neighbours, time.monotonic() + seconds))


async def _settled(
    redis_url: str, messages: Sequence[Message], neighbours: Neighbours, deadline: float
) -> list[Message]:
    redis = RedisConnection(redis_url, client_name="first-run")
    await redis.open()
    try:
        while True:
            told = [_arrived(await _job(redis, message), neighbours) for message in messages]
            if all(message.is_complete for message in told) or time.monotonic() > deadline:
                return told
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await redis.close()


async def _job(redis: RedisConnection, message: Message) -> Message:
    fields = ("atm", "deferredBecause", "finishedOn", "failedReason")
    attempts, because, finished, reason = await redis.call("HMGET", message.queue.key(message.job_id), *fields)
    return replace(
        message,
        attempts=int(attempts or 0),
        put_off_because=because.decode(errors="replace").partition(":")[0] if because else None,
        finished_at=int(finished) / 1000 if finished else None,
        failed_reason=reason.decode(errors="replace") if reason else None,
    )


def _arrived(message: Message, neighbours: Neighbours) -> Message:
    if message.channel == "SMS":
        for sms in neighbours.company.messages:
            return replace(message, accepted_at=sms.received_at.timestamp(), proof=f"{sms.sid[:10]}..., {sms.body!r}")
    for call in neighbours.receiver.received:
        if message.channel == "WEBHOOK" and call.genuine:
            return replace(message, accepted_at=call.received_at, proof="the receiver found the signature right")
    return message


def table(messages: Sequence[Message]) -> str:
    """One line a message; times are milliseconds since it was queued."""
    layout = "{:<8} {:<34} {:<21} {:>8}  {:>8}  {}".format
    lines = [layout("CHANNEL", "TO", "PUT OFF BECAUSE", "ATTEMPTS", "ACCEPTED", "WHAT CAME")]
    for one in messages:
        accepted = "-" if one.accepted_at is None else f"+{round((one.accepted_at - one.queued_at) * 1000)}"
        lines.append(
            layout(one.channel, one.to, one.put_off_because or "-", one.attempts, accepted, one.proof).rstrip()
        )
    return "\n".join(lines)
