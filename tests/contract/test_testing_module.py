"""What `worker_runtime.testing` promises to whoever writes a handler."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from embedded_stack.ports import free_port
from worker_runtime import DeadLetter, Defer, Done, Hold, Job, Outcome, PermanentError, Retry
from worker_runtime.redis.connection import RedisConnection, RedisUnavailable
from worker_runtime.retry import ScheduledRetry
from worker_runtime.testing import Ended, Heard, job_for, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Greeting(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)

    first_name: str = Field(min_length=1)


HANNAH = Greeting(first_name="Hannah")


async def greet(job: Job[Greeting]) -> Outcome:
    await job.report_progress({"greeted": job.payload.first_name})
    return Done({"said": f"Hello {job.payload.first_name}", "attempt": job.attempt})


def returning(outcome: Outcome) -> Callable[[Job[Greeting]], Awaitable[Outcome]]:
    async def handle(job: Job[Greeting]) -> Outcome:
        return outcome

    return handle


async def end_of(redis_url: str, handle: Callable[[Job[Greeting]], Awaitable[Outcome]], **options: Any) -> Ended:
    async with running(handle, payload=Greeting, redis_url=redis_url, **options) as queue:
        return await queue.ended(await queue.add(HANNAH))


@pytest.mark.parametrize("data", [HANNAH, {"firstName": "Hannah"}, b'{"firstName":"Hannah"}'])
async def test_a_job_is_completed_with_its_result_and_progress(redis_url: str, data: Any) -> None:
    async with running(greet, payload=Greeting, redis_url=redis_url) as queue:
        ended = await queue.ended(await queue.add(data))
    result = {"said": "Hello Hannah", "attempt": 1}
    assert ended == Ended("completed", attempts=1, returnvalue=result, progress={"greeted": "Hannah"})


async def test_a_payload_that_does_not_validate_never_reaches_the_handler(redis_url: str) -> None:
    async with running(greet, payload=Greeting, redis_url=redis_url) as queue:
        ended = await queue.ended(await queue.add({"firstName": ""}))
    assert (ended.state, ended.progress) == ("failed", None)
    assert str(ended.failed_reason).startswith("INVALID_PAYLOAD: firstName: ")


async def test_a_permanent_error_is_a_failure_at_once(redis_url: str) -> None:
    async def handle(job: Job[Greeting]) -> Outcome:
        raise PermanentError("NO_SUCH_PERSON", "ask somebody else")

    assert await end_of(redis_url, handle) == Ended(
        "failed", attempts=1, failed_reason="NO_SUCH_PERSON: ask somebody else"
    )
    assert (await end_of(redis_url, returning(DeadLetter("X", "y")))).failed_reason == "X: y"


async def test_three_attempts_follow_each_other_at_once(redis_url: str) -> None:
    async def handle(job: Job[Greeting]) -> Outcome:
        return Done(job.attempt) if job.attempt == 3 else Retry("BUSY", "the line")

    ended = await end_of(redis_url, handle)
    assert (ended.state, ended.attempts, ended.returnvalue) == ("completed", 3, 3)
    assert (await end_of(redis_url, returning(Retry("BUSY", "the line")))).attempts == 3


async def test_a_retry_later_than_anybody_waits_is_delayed(redis_url: str) -> None:
    ended = await end_of(redis_url, returning(Retry("BUSY", "the line")), retry=ScheduledRetry(2, (60,)))
    assert (ended.state, ended.attempts, ended.failed_reason) == ("delayed", 1, "BUSY: the line")
    assert 50 < ended.due_in < 70


async def test_a_deferral_costs_no_attempt_and_says_why(redis_url: str) -> None:
    ended = await end_of(redis_url, returning(Defer("NIGHT", "they sleep", 3600)))
    assert (ended.state, ended.attempts, ended.deferred_because) == ("delayed", 0, "NIGHT: they sleep")
    assert 3590 < ended.due_in <= 3600


async def test_a_held_job_waits(redis_url: str) -> None:
    assert await end_of(redis_url, returning(Hold("OUT", "no line", 60))) == Ended("waiting", attempts=0)


async def test_the_time_limit_holds(redis_url: str) -> None:
    async def handle(job: Job[Greeting]) -> Outcome:
        await asyncio.Event().wait()
        return Done()

    ended = await end_of(redis_url, handle, time_limit_seconds=0.02)
    assert str(ended.failed_reason).startswith("TIME_LIMIT: ")


async def test_a_handler_without_an_outcome_is_told_to_who_waits(redis_url: str) -> None:
    async def handle(job: Job[Greeting]) -> Outcome:
        return "Hello"  # type: ignore[return-value]

    with pytest.raises(TypeError, match="no outcome"):
        await end_of(redis_url, handle)


async def test_a_job_that_does_not_end_is_told_and_does_not_hold_up_the_end(redis_url: str) -> None:
    async def handle(job: Job[Greeting]) -> Outcome:
        await asyncio.Event().wait()
        return Done()

    async with running(handle, payload=Greeting, redis_url=redis_url) as queue:
        job_id = await queue.add(HANNAH, job_id="hannah")
        with pytest.raises(TimeoutError, match=r"hannah has not ended within 0\.1 s"):
            await queue.ended(job_id, within=0.1)


async def test_a_job_nobody_added_is_told_from_one_that_is_slow(redis_url: str) -> None:
    async with running(greet, payload=Greeting, redis_url=redis_url) as queue:
        with pytest.raises(LookupError, match="never added"):
            await queue.ended("nobody")


async def test_nothing_is_left_in_redis_and_nothing_of_others_is_touched(redis_url: str) -> None:
    redis = RedisConnection(redis_url, client_name="another")
    await redis.open()
    await redis.call("SET", "somebody:elses", "value")
    await end_of(redis_url, greet)
    assert await redis.call("KEYS", "*") == [b"somebody:elses"]
    await redis.close()


async def test_without_redis_it_says_so() -> None:
    with pytest.raises(RedisUnavailable):
        await end_of(f"redis://127.0.0.1:{free_port()}/0", greet)


async def test_a_handler_is_called_with_a_job_that_was_made_for_it() -> None:
    heard = Heard()
    outcome = await greet(job_for(HANNAH, attempt=2, notes=heard))
    assert outcome == Done({"said": "Hello Hannah", "attempt": 2})
    assert heard.progress == [{"greeted": "Hannah"}]
    assert await greet(job_for(HANNAH)) == Done({"said": "Hello Hannah", "attempt": 1})
