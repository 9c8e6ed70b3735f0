"""The outcome table of the contracts, row by row: what the handler did, and what Redis says of the job afterwards."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import pytest
from pydantic import BaseModel

from engine_harness import QUEUE, QUICK, Bench, bench
from worker_runtime.bullmq.producer import NewJob
from worker_runtime.consumer import Consumer, ConsumerOptions
from worker_runtime.loops import StopSignal
from worker_runtime.metrics import Metrics
from worker_runtime.outcome import DeadLetter, Defer, Done, Hold, Outcome, PermanentError, Retry
from worker_runtime.redis.connection import RedisConnection
from worker_runtime.retry import ScheduledRetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from worker_runtime.job import Job


class Recipient(BaseModel):
    email: str


class Payload(BaseModel):
    recipient: Recipient


class Outgoing:
    """A consumer on the bench's queue, its metrics, and the jobs its handler saw."""

    def __init__(self, queue: Bench, handle: Callable[[Job[Payload]], Awaitable[Outcome]], **options: Any) -> None:
        self.seen: list[Job[Payload]] = []
        self.metrics = Metrics("test-worker")
        retry = ScheduledRetry(max_attempts=3, delays_seconds=(0.02, 0.04))
        engine = options.pop("engine", replace(QUICK, concurrency=1))

        async def seen(job: Job[Payload]) -> Outcome:
            self.seen.append(job)
            return await handle(job)

        self.consumer = Consumer(
            queue.redis,
            RedisConnection(queue.url, client_name="blocking", timeout_seconds=10),
            QUEUE,
            Payload,
            seen,
            ConsumerOptions(retry=retry, engine=engine, **options),
            self.metrics.for_queue(QUEUE.label),
            random.Random(1),
            token="ours",
        )
        self.stop = StopSignal()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.consumer.run(self.stop))
        return self

    async def __aexit__(self, *error: object) -> None:
        self.stop.request(5)
        await self._task

    def sample(self, name: str) -> float:
        labels = {"worker": "test-worker", "queue": QUEUE.label}
        value = self.metrics.registry.get_sample_value(name, labels)
        assert value is not None, name
        return value


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Bench]:
    async with bench(redis_url) as opened:
        yield opened


GOOD = {"recipient": {"email": "ann@example.org"}}


async def done(job: Job[Payload]) -> Outcome:
    return Done({"sent": True})


async def run(queue: Bench, handle: Callable[[Job[Payload]], Awaitable[Outcome]], **options: Any) -> Outgoing:
    await queue.queue.add(NewJob("job", GOOD, job_id="one"))
    async with Outgoing(queue, handle, **options) as outgoing:
        await queue.finished(1)
    return outgoing


async def test_done_is_completed_with_its_result(queue: Bench) -> None:
    outgoing = await run(queue, done)
    job = await queue.hash("one")
    assert json.loads(job["returnvalue"]) == {"sent": True}
    assert outgoing.sample("intelliflow_worker_jobs_processed_total") == 1
    assert outgoing.sample("intelliflow_worker_jobs_failed_total") == 0


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"not json", "INVALID_PAYLOAD: not readable as JSON"),
        (b'{"recipient": {"email": "\xff\xfe"}}', "INVALID_PAYLOAD: not readable as JSON"),
        (b"[" * 100_000, "INVALID_PAYLOAD: not readable as JSON"),
        (b"{}", "INVALID_PAYLOAD: recipient is missing"),
        (b'{"recipient": {}}', "INVALID_PAYLOAD: recipient.email is missing"),
        (b'{"recipient": {"email": 7}}', "INVALID_PAYLOAD: recipient.email: Input should be a valid string"),
        (
            b'{"x": "' + b"y" * 5_000_000 + b'"}',
            "INVALID_PAYLOAD: 5000009 bytes, over QUEUE_MAX_PAYLOAD_BYTES (2097152)",
        ),
    ],
    ids=["not json", "not utf-8", "too deep", "empty", "missing field", "wrong type", "5 MB"],
)
async def test_an_invalid_payload_is_a_dead_letter_and_the_next_job_runs(queue: Bench, raw: bytes, reason: str) -> None:
    await queue.queue.add(NewJob("job", raw, job_id="bad"))
    await queue.queue.add(NewJob("job", GOOD, job_id="good"))
    async with Outgoing(queue, done) as outgoing:
        await queue.finished(2)
    bad = await queue.hash_bytes("bad")
    assert bad[b"failedReason"].decode().startswith(reason)
    assert bad[b"atm"] == b"1"
    assert [job.id for job in outgoing.seen] == ["good"]
    assert await queue.ids("failed") == ["bad"]


async def test_a_job_whose_hash_is_gone_is_a_dead_letter(queue: Bench) -> None:
    await queue.queue.add(NewJob("job", GOOD, job_id="one"))
    await queue.redis.call("DEL", QUEUE.key("one"))
    async with Outgoing(queue, done):
        await queue.finished(1)
    assert (await queue.hash("one"))["failedReason"].startswith("INVALID_PAYLOAD: the job has no data")


async def test_a_permanent_error_is_a_dead_letter_at_once(queue: Bench) -> None:
    async def handle(job: Job[Payload]) -> Outcome:
        raise PermanentError("PROVIDER_REJECTED", "no such mailbox")

    outgoing = await run(queue, handle)
    assert (await queue.hash("one"))["failedReason"] == "PROVIDER_REJECTED: no such mailbox"
    assert len(outgoing.seen) == 1


async def test_a_dead_letter_is_final(queue: Bench) -> None:
    async def handle(job: Job[Payload]) -> Outcome:
        return DeadLetter("SUPPRESSED", "the recipient asked for silence")

    outgoing = await run(queue, handle)
    assert len(outgoing.seen) == 1
    assert outgoing.sample("intelliflow_worker_jobs_failed_total") == 1


async def test_anything_else_is_retried_by_the_table_and_then_a_dead_letter(queue: Bench) -> None:
    async def handle(job: Job[Payload]) -> Outcome:
        raise RuntimeError("cannot reach ann@example.org")

    outgoing = await run(queue, handle)
    job = await queue.hash("one")
    assert [seen.attempt for seen in outgoing.seen] == [1, 2, 3]
    assert job["failedReason"].startswith("HANDLER_FAILED: RuntimeError: cannot reach ")
    assert "ann@example.org" not in json.dumps(job["failedReason"] + job["stacktrace"])
    assert len(json.loads(job["stacktrace"])) == 3
    assert outgoing.sample("intelliflow_worker_jobs_processed_total") == 3
    assert outgoing.sample("intelliflow_worker_jobs_failed_total") == 3


async def test_a_handler_that_cancels_itself_is_a_failure_and_no_disappearance(queue: Bench) -> None:
    async def handle(job: Job[Payload]) -> Outcome:
        raise asyncio.CancelledError

    outgoing = await run(queue, handle)
    assert (await queue.hash("one"))["failedReason"].startswith("HANDLER_CANCELLED")
    assert len(outgoing.seen) == 3


async def test_a_handler_that_exits_does_not_take_the_worker_along(queue: Bench) -> None:
    async def handle(job: Job[Payload]) -> Outcome:
        raise SystemExit(0)

    await run(queue, handle)
    assert (await queue.hash("one"))["failedReason"].startswith("HANDLER_FAILED: SystemExit")


async def test_the_time_limit_is_a_failed_attempt(queue: Bench) -> None:
    async def handle(job: Job[Payload]) -> Outcome:
        if job.attempt == 1:
            await asyncio.sleep(30)  # Longer than its limit.
        return Done()

    outgoing = await run(queue, handle, time_limit_seconds=0.05)
    assert [seen.attempt for seen in outgoing.seen] == [1, 2]


async def test_a_timeout_of_the_handler_s_own_is_not_the_time_limit(queue: Bench) -> None:
    async def handle(job: Job[Payload]) -> Outcome:
        raise TimeoutError("the provider slept")

    await run(queue, handle)
    assert (await queue.hash("one"))["failedReason"] == "HANDLER_FAILED: TimeoutError: the provider slept"


async def test_a_floor_stretches_the_delay(queue: Bench) -> None:
    times: list[float] = []

    async def handle(job: Job[Payload]) -> Outcome:
        times.append(time.monotonic())
        return Done() if len(times) == 2 else Retry("GREYLISTED", "later", floor=0.3)

    await run(queue, handle)
    assert times[1] - times[0] >= 0.29


async def test_a_deferral_costs_no_attempt_until_it_lasts_too_long(queue: Bench) -> None:
    async def handle(job: Job[Payload]) -> Outcome:
        assert job.attempt == 1
        return Defer("CIRCUIT_OPEN", "the endpoint is out", 0.05)

    outgoing = await run(queue, handle, max_defer_seconds=0.2)
    job = await queue.hash("one")
    assert job["failedReason"] == "DEFERRED_TOO_LONG: CIRCUIT_OPEN: the endpoint is out"
    assert 3 <= len(outgoing.seen) <= 6
    assert outgoing.sample("intelliflow_worker_jobs_processed_total") == 0


async def test_a_planned_deferral_may_last(queue: Bench) -> None:
    async def handle(job: Job[Payload]) -> Outcome:
        late = time.time() - job.created_at > 0.25
        return Done() if late else Defer("SCHEDULED", "asked for later", 0.05, planned=True)

    await run(queue, handle, max_defer_seconds=0.01)
    assert await queue.ids("completed") == ["one"]


async def test_a_hold_costs_no_attempt_and_keeps_the_queue_visible(queue: Bench) -> None:
    async def handle(job: Job[Payload]) -> Outcome:
        return Done() if len(outgoing.seen) > 1 else Hold("CIRCUIT_OPEN", "the only provider is out", 0.2)

    await queue.queue.add_bulk([NewJob("job", GOOD, job_id=f"job-{n}") for n in range(3)])
    async with Outgoing(queue, handle) as outgoing:
        await queue.finished(3)
    assert [job.id for job in outgoing.seen] == ["job-0", "job-0", "job-1", "job-2"]
    assert (await queue.hash("job-0"))["atm"] == "1"


async def test_a_third_stall_is_a_dead_letter_without_the_handler(queue: Bench) -> None:
    await queue.queue.add(NewJob("job", GOOD, job_id="one"))
    await queue.redis.call("HSET", QUEUE.key("one"), "defa", "job stalled more than allowable limit")
    async with Outgoing(queue, done) as outgoing:
        await queue.finished(1)
    assert (await queue.hash("one"))["failedReason"].startswith("STALLED: ")
    assert outgoing.seen == []


async def test_draining_past_the_deadline_hands_back_unburnt(queue: Bench) -> None:
    started = asyncio.Event()

    async def handle(job: Job[Payload]) -> Outcome:
        started.set()
        await asyncio.sleep(60)  # Longer than the deadline.
        return Done()

    await queue.queue.add(NewJob("job", GOOD, job_id="one"))
    async with Outgoing(queue, handle) as outgoing:
        await asyncio.wait_for(started.wait(), 5)
        outgoing.stop.request(0)
    assert outgoing.consumer.handed_back == 1
    assert await queue.ids("wait") == ["one"]
    assert "atm" not in await queue.hash("one")


async def test_a_handler_without_an_outcome_is_a_bug_that_ends_the_loop_and_keeps_the_job(queue: Bench) -> None:
    async def handle(job: Job[Payload]) -> Outcome:
        return "sent"  # type: ignore[return-value]

    await queue.queue.add(NewJob("job", GOOD, job_id="one"))
    with pytest.raises(TypeError, match="no outcome"):
        async with Outgoing(queue, handle) as outgoing:
            await outgoing._task
    assert (await queue.queue.counts()).completed == 0
    assert [*await queue.ids("wait"), *await queue.ids("active")] == ["one"]


@pytest.mark.parametrize(
    "options",
    [
        {"tm": "[" * 50_000},
        {"tm": 7},
        {"removeOnComplete": 1.7e308, "removeOnFail": 1.7e308},
        {"removeOnComplete": {"age": 1e300, "count": -1}, "removeOnFail": {"age": "soon"}},
        {"stackTraceLimit": 1e300},
        {"attempts": 1e300, "backoff": {"type": "exponential", "delay": 1e300, "jitter": "x"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("ends_well", [True, False])
async def test_no_option_of_a_producer_harms_the_worker(queue: Bench, options: dict[str, Any], ends_well: bool) -> None:  # noqa: FBT001
    async def handle(job: Job[Payload]) -> Outcome:
        return Done() if ends_well or job.id == "next" else DeadLetter("REFUSED", "for the test")

    await queue.queue.add(NewJob("job", GOOD, job_id="odd", options=options))
    await queue.queue.add(NewJob("job", GOOD, job_id="next"))
    async with Outgoing(queue, handle) as outgoing:
        await queue.finished(2)
    assert [job.id for job in outgoing.seen] == ["odd", "next"]
    assert await queue.ids("active") == []


@pytest.mark.parametrize(
    "repeat",
    [{"pattern": 5}, {"pattern": "* * *"}, {"pattern": "* * * * *", "tz": "Moon/Base"}, {"every": "often"}, "daily"],
    ids=str,
)
async def test_a_schedule_nobody_can_read_ends_and_its_job_runs(queue: Bench, repeat: Any) -> None:
    await queue.queue.add(NewJob("job", GOOD, job_id="one", options={"repeat": repeat, "prevMillis": 1e300}))
    await queue.redis.call("HSET", QUEUE.key("one"), "rjk", "tick", "timestamp", "9" * 400)
    async with Outgoing(queue, done):
        await queue.finished(1)
    assert await queue.ids("completed") == ["one"]


async def test_personal_data_in_a_reason_is_masked(queue: Bench) -> None:
    async def handle(job: Job[Payload]) -> Outcome:
        raise PermanentError("TEMPLATE_ERROR", "no template ann@example.org")

    await run(queue, handle)
    assert (await queue.hash("one"))["failedReason"] == "TEMPLATE_ERROR: no template ***@example.org"
