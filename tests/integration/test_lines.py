"""Jobs of one line run one after another, whichever replica claims them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from worker_runtime.bullmq.lines import Lines, Waiting
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.outcome import DeadLetter, Defer, Done, Outcome, Retry
from worker_runtime.redis.connection import RedisConnection
from worker_runtime.retry import ScheduledRetry
from worker_runtime.testing import HandlerQueue, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from worker_runtime.job import Job

QUEUE = QueueName("intelliflow:notifications", "webhook")
REPLICAS = 3
SOON = ScheduledRetry(max_attempts=3, delays_seconds=(0.05,))


class Message(BaseModel):
    line: str | None
    number: int


@dataclass
class Observed:
    """What the receivers behind the lines got."""

    ended: dict[str, list[int]] = field(default_factory=dict)
    tried: Counter[tuple[str | None, int]] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)
    most_inside: int = 0


class Replica:
    """One worker's handler: asks for its turn, tries, and lets the next one go."""

    def __init__(self, lines: Lines, seen: Observed, ends: Callable[[Message, int], Outcome], *, tell: bool) -> None:
        self._lines = lines
        self._seen = seen
        self._ends = ends
        self._tell = tell

    async def __call__(self, job: Job[Message]) -> Outcome:
        message, seen = job.payload, self._seen
        if message.line is None:
            seen.tried[None, message.number] += 1
            return Done()
        # The order in which workers come to ask is not that of the claims: this is what makes it so.
        await asyncio.sleep(Random(f"{job.id} {job.attempt}").uniform(0, 0.01))
        waiting = await self._lines.may_go(message.line, job.id, [{"line": message.line}])
        if waiting:
            return Defer("EARLIER_DELIVERY_UNFINISHED", "not its turn", waiting.seconds)
        seen.inside[message.line] += 1
        seen.most_inside = max(seen.most_inside, seen.inside[message.line])
        seen.tried[message.line, message.number] += 1
        await asyncio.sleep(0.002)  # The time a receiver takes, in which others could overtake.
        outcome = self._ends(message, job.attempt)
        if not isinstance(outcome, Retry):
            seen.ended.setdefault(message.line, []).append(message.number)
        seen.inside[message.line] -= 1
        if self._tell and not isinstance(outcome, Retry):
            await self._lines.ended(job.id)
        return outcome


@dataclass
class Stage:
    redis: RedisConnection
    lines: Lines
    queue: JobQueue
    handler: HandlerQueue
    seen: Observed

    async def add(self, messages: list[Message]) -> list[str]:
        jobs = [
            NewJob("send", message.model_dump(), job_id=f"{m.line}-{m.number}") for m in messages for message in [m]
        ]
        return await self.queue.add_bulk(jobs)

    async def ended(self, ids: list[str], within: float = 60.0) -> list[str]:
        return [(await self.handler.ended(job_id, within)).state for job_id in ids]


@asynccontextmanager
async def replicas(
    redis_url: str, ends: Callable[[Message, int], Outcome], *, tell: bool = True, concurrency: int = 5
) -> AsyncIterator[Stage]:
    redis, seen = RedisConnection(redis_url, client_name="lines"), Observed()
    await redis.open()
    async with AsyncExitStack() as opened:
        opened.push_async_callback(redis.close)
        lines, queue = Lines(redis, QUEUE), JobQueue(redis, QUEUE)
        replica = Replica(lines, seen, ends, tell=tell)
        started = [
            await opened.enter_async_context(
                running(
                    replica,
                    payload=Message,
                    redis_url=redis_url,
                    retry=SOON,
                    concurrency=concurrency,
                    name=QUEUE,
                )
            )
            for _ in range(REPLICAS)
        ]
        yield Stage(redis, lines, queue, started[0], seen)


def messages(line: str, count: int) -> list[Message]:
    return [Message(line=line, number=number) for number in range(count)]


async def test_one_after_another_in_the_order_they_were_added(redis_url: str) -> None:
    async with replicas(redis_url, lambda _message, _attempt: Done()) as stage:
        ids = await stage.add(
            [message for pair in zip(messages("a", 60), messages("b", 60), strict=True) for message in pair]
        )
        states = await stage.ended(ids)

    assert set(states) == {"completed"}
    assert stage.seen.ended == {"a": list(range(60)), "b": list(range(60))}
    assert stage.seen.most_inside == 1
    assert set(stage.seen.tried.values()) == {1}


async def test_a_failing_one_is_tried_again_before_the_later_ones_go_and_a_dead_one_lets_them(redis_url: str) -> None:
    def ends(message: Message, attempt: int) -> Outcome:
        if message.number % 7 == 3:
            return Retry("BUSY", "not yet") if attempt < 3 else Done()
        if message.number % 7 == 5:
            return DeadLetter("GONE", "never")
        return Done()

    async with replicas(redis_url, ends) as stage:
        ids = await stage.add(messages("a", 30))
        states = await stage.ended(ids)

    assert stage.seen.ended == {"a": list(range(30))}
    assert states == ["failed" if number % 7 == 5 else "completed" for number in range(30)]
    assert stage.seen.most_inside == 1
    assert [stage.seen.tried["a", number] for number in (2, 3, 4)] == [1, 3, 1]


async def test_one_whose_attempts_are_used_up_lets_the_rest_go_though_nobody_is_told(redis_url: str) -> None:
    def ends(message: Message, _attempt: int) -> Outcome:
        return Retry("BUSY", "never") if message.number == 0 else Done()

    async with replicas(redis_url, ends, tell=False) as stage:
        states = await stage.ended(await stage.add(messages("a", 4)))

    assert states == ["failed", "completed", "completed", "completed"]
    assert stage.seen.ended == {"a": [1, 2, 3]}
    assert stage.seen.tried["a", 0] == 3


async def test_others_do_not_wait_for_a_line(redis_url: str) -> None:
    def ends(message: Message, _attempt: int) -> Outcome:
        return Retry("BUSY", "not yet") if message.line == "a" else Done()

    async with replicas(redis_url, ends) as stage:
        await stage.add(messages("a", 10))
        free = await stage.add([*messages("b", 5), *(Message(line=None, number=number) for number in range(5))])
        assert set(await stage.ended(free)) == {"completed"}


@pytest.fixture
async def bare(redis_url: str) -> AsyncIterator[tuple[RedisConnection, Lines]]:
    redis = RedisConnection(redis_url, client_name="lines")
    await redis.open()
    yield redis, Lines(redis, QUEUE)
    await redis.close()


async def claim(redis: RedisConnection, job_id: str, data: Any) -> None:
    """Make Redis look as BullMQ leaves it after a claim."""
    body = data if isinstance(data, str) else json.dumps(data)
    await redis.call("HSET", QUEUE.key(job_id), "data", body, "timestamp", "1")
    await redis.call("LPUSH", QUEUE.key("active"), job_id)


MARK = [{"tenantId": "t-1", "recipient.id": "e-1"}, {"tenantId": "t-1", "recipient.webhookUrl": "https://a.example/é"}]


async def test_who_was_claimed_before_and_has_not_asked_yet_goes_first(bare: tuple[RedisConnection, Lines]) -> None:
    redis, lines = bare
    url = "https://a.example/é"
    await claim(redis, "other-tenant", {"tenantId": "t-2", "recipient": {"id": "e-1"}})
    await claim(redis, "other-endpoint", {"tenantId": "t-1", "recipient": {"id": "e-2"}, "content": "e-1 t-1"})
    await claim(redis, "not-json", '{"tenantId": "t-1", "recipient": {"id": "e-1"')
    await claim(redis, "by-id", {"tenantId": "t-1", "recipient": {"id": "e-1"}})
    await claim(
        redis, "by-url-escaped", json.dumps({"tenantId": "t-1", "recipient": {"webhookUrl": url}}).replace("/", "\\/")
    )
    await claim(redis, "me", {"tenantId": "t-1", "recipient": {"id": "e-1"}})
    await claim(redis, "later", {"tenantId": "t-1", "recipient": {"id": "e-1"}})

    assert await lines.may_go("e-1", "me", MARK) == Waiting(1.2)
    assert await redis.call("ZRANGE", QUEUE.key("line:e-1"), 0, -1) == [b"by-id", b"by-url-escaped", b"me"]
    assert await lines.may_go("e-1", "by-id", MARK) is None
    await lines.ended("by-id")
    # It has left its line: that it still is in `active` makes it nobody to wait for.
    assert await lines.may_go("e-1", "later", MARK) == Waiting(1.2)
    assert await lines.may_go("e-1", "by-url-escaped", MARK) is None


async def test_who_is_finished_or_gone_is_passed_over(bare: tuple[RedisConnection, Lines]) -> None:
    redis, lines = bare
    for job_id in ("finished", "removed", "me"):
        await claim(redis, job_id, {"tenantId": "t-1", "recipient": {"id": "e-1"}})
        await lines.may_go("e-1", job_id, MARK)
    assert await lines.may_go("e-1", "me", MARK)
    await redis.call("HSET", QUEUE.key("finished"), "finishedOn", "2")
    assert await lines.may_go("e-1", "me", MARK)
    await redis.call("DEL", QUEUE.key("removed"))
    assert await lines.may_go("e-1", "me", MARK) is None


async def test_who_waits_for_one_that_is_put_off_waits_as_long(bare: tuple[RedisConnection, Lines]) -> None:
    redis, lines = bare
    for job_id in ("first", "me"):
        await claim(redis, job_id, {"tenantId": "t-1", "recipient": {"id": "e-1"}})
    seconds, _ = await redis.call("TIME")
    await redis.call("ZADD", QUEUE.key("delayed"), (int(seconds) + 30) * 1000 * 0x1000, "first")
    waiting = await lines.may_go("e-1", "me", MARK)

    assert waiting is not None
    assert 20 < waiting.seconds < 32


async def test_the_end_of_one_that_was_in_no_line_is_nothing(bare: tuple[RedisConnection, Lines]) -> None:
    redis, lines = bare
    await lines.ended("nobody")
    assert await redis.call("KEYS", "*") == []
