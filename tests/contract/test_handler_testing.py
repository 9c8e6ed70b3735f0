"""What `events_worker.handlers` and `events_worker.testing` promise to whoever writes a handler."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from structlog.testing import capture_logs

from engine_harness import until
from events_worker.handlers import EventJob, HandlerContext, HandlersUnusable, NewJob, QueueName, on
from events_worker.testing import HandledEvents, handling
from worker_runtime import DeadLetter, Defer, Outcome, Retry
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

LEAD = {"leadId": "l-1", "email": "ada@example.com", "tenantId": "t-1"}
TABLE = "CREATE TABLE effect (id text)"
EFFECT = "INSERT INTO effect VALUES ('once')"


@pytest.fixture
def handled(database_url: str, redis_url: str) -> Any:
    def open_it(*functions: Any, **options: Any) -> AbstractAsyncContextManager[HandledEvents]:
        return handling(*functions, database_url=database_url, redis_url=redis_url, **options)

    return open_it


@pytest.fixture
async def database(database_url: str) -> Any:
    connection = await asyncpg.connect(database_url)
    await connection.execute(TABLE)
    yield connection
    await connection.close()


async def test_an_event_is_handled_by_all_whom_it_concerns(handled: Any) -> None:
    @on("lead.*")
    async def family(event: EventJob, context: HandlerContext) -> Any:
        return {"for": event.aggregate_id, "tenant": event.tenant_id, "by": event.metadata.correlation_id}

    @on("*", name="everything")
    async def renamed(event: EventJob, context: HandlerContext) -> None: ...

    @on("lead.deleted")
    async def other(event: EventJob, context: HandlerContext) -> None: ...

    async with handled(family, renamed, other) as work:
        event_id = await work.commit(
            "lead.created", LEAD, aggregate_id="l-1", tenant_id="t-9", metadata={"correlationId": "c-1"}
        )
        ended = await work.ended(event_id)
    assert (ended.state, ended.attempts) == ("completed", 1)
    assert ended.returnvalue == {"family": {"for": "l-1", "tenant": "t-9", "by": "c-1"}, "everything": None}


async def test_events_of_an_aggregate_have_their_turns(handled: Any) -> None:
    ran: list[str] = []

    @on("lead.updated")
    async def slow(event: EventJob, context: HandlerContext) -> None:
        ran.append(f"begin {event.payload['updatedAt']}")
        await asyncio.sleep(0)
        ran.append(f"end {event.payload['updatedAt']}")

    async with handled(slow) as work:
        ids = [
            await work.commit("lead.updated", {**LEAD, "updatedAt": str(number)}, aggregate_id="l-1")
            for number in range(20)
        ]
        assert (await work.ended(ids[-1])).state == "completed"
    assert ran == [f"{what} {number}" for number in range(20) for what in ("begin", "end")]


async def test_nothing_is_left_of_the_events_and_others_are_left_alone(
    handled: Any, database: Any, redis_url: str
) -> None:
    await database.execute(
        "INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id)"
        " VALUES (gen_random_uuid(), 'lead.created', 'Lead', 'l-1', 't-1')"
    )

    @on("lead.created")
    async def failing(event: EventJob, context: HandlerContext) -> Outcome:
        await context.enqueue("EMAIL", NewJob("mail", {}))
        return DeadLetter("NEVER", "it cannot be done")

    async with handled(failing) as work:
        ended = await work.ended(await work.commit("lead.created", LEAD))
        assert (ended.state, ended.failed_reason) == ("failed", "NEVER: handler failing: it cannot be done")
        assert await database.fetchval("SELECT count(*) FROM domain_event_outbox WHERE status = 'dead_letter'") == 1
    assert await database.fetch("SELECT status FROM domain_event_outbox") == [("pending",)]
    for table in ("domain_event_under_way", "domain_event_outbox_archive"):
        assert await database.fetchval(f"SELECT count(*) FROM {table}") == 0
    redis = RedisConnection(redis_url, client_name="test")
    await redis.open()
    assert await redis.call("KEYS", "*") == []
    await redis.close()


async def test_a_broken_contract_never_reaches_the_handler(handled: Any) -> None:
    @on("lead.created")
    async def handler(event: EventJob, context: HandlerContext) -> None:
        raise AssertionError

    async with handled(handler) as work:
        ended = await work.ended(await work.commit("lead.created", {"leadId": "l-1", "tenantId": "t-1"}))
    assert ended.failed_reason == "INVALID_PAYLOAD: email is missing"


async def test_who_has_no_turn_yet_is_waited_for_and_not_forever(handled: Any) -> None:
    @on("lead.created")
    async def postponing(event: EventJob, context: HandlerContext) -> Outcome:
        return Defer("LATER", "not today", 3600)

    async with handled(postponing) as work:
        first = await work.commit("lead.created", LEAD, aggregate_id="l-1")
        second = await work.commit("lead.created", LEAD, aggregate_id="l-1")
        assert (await work.ended(first)).state == "delayed"
        with pytest.raises(TimeoutError, match=f"the turn of event {second} has not come"):
            await work.ended(second, within=0.1)


async def test_a_function_without_a_mark_is_refused(handled: Any) -> None:
    async def unmarked(event: EventJob, context: HandlerContext) -> None: ...

    with pytest.raises(HandlersUnusable, match="unmarked is not marked with @on"):
        async with handled(unmarked):
            pass


async def test_killed_after_its_work_a_handler_runs_again_but_not_its_transaction(handled: Any, database: Any) -> None:
    ran: list[str] = []

    @on("lead.created")
    async def careless(event: EventJob, context: HandlerContext) -> None:
        ran.append("careless")

    @on("lead.created")
    async def exact(event: EventJob, context: HandlerContext) -> None:
        ran.append("exact")
        async with context.transaction() as connection:
            await connection.execute(EFFECT)

    async with handled(careless, exact, killed_once=True) as work:
        ended = await work.ended(await work.commit("lead.created", LEAD))
    assert (ended.state, ended.attempts) == ("completed", 1)
    assert sorted(ran) == ["careless", "careless", "exact"]
    assert await database.fetchval("SELECT count(*) FROM effect") == 1


async def test_a_transaction_may_be_tried_again_and_not_be_entered_twice(handled: Any, database: Any) -> None:
    @on("lead.created")
    async def trying(event: EventJob, context: HandlerContext) -> None:
        with contextlib.suppress(asyncpg.DivisionByZeroError):
            async with context.transaction() as connection:
                await connection.execute(EFFECT)
                await connection.execute("SELECT 1 / 0")
        async with context.transaction() as connection:
            await connection.execute(EFFECT)

    @on("lead.updated")
    async def twice(event: EventJob, context: HandlerContext) -> None:
        async with context.transaction():
            pass
        async with context.transaction():
            pass

    @on("lead.scored")
    async def nested(event: EventJob, context: HandlerContext) -> None:
        async with context.transaction(), context.transaction():
            pass

    async with handled(trying, twice, nested) as work:
        assert (await work.ended(await work.commit("lead.created", LEAD))).state == "completed"
        for event_type, more in (
            ("lead.updated", {"updatedAt": "now"}),
            ("lead.scored", {"score": 1, "scoredAt": "now"}),
        ):
            ended = await work.ended(await work.commit(event_type, LEAD | more))
            assert str(ended.failed_reason).startswith("TRANSACTION_TWICE: handler ")
    assert await database.fetchval("SELECT count(*) FROM effect") == 1


async def test_a_job_without_an_id_is_added_once_by_what_it_says(handled: Any) -> None:
    @on("lead.created")
    async def telling(event: EventJob, context: HandlerContext) -> list[str]:
        said = [NewJob("mail", {"to": "ada"}), NewJob("mail", {"to": "sam"}), NewJob("mail", {"to": "ada"})]
        added = [*await context.enqueue("EMAIL", *said), *await context.enqueue("EMAIL", said[0])]
        await context.enqueue("EMAIL", NewJob("mail", b'{"to":"eve"}', job_id="own", priority=5))
        await context.enqueue(QueueName("reports", "nightly"), NewJob("lead", {"id": event.aggregate_id}))
        return added

    async with handled(telling, killed_once=True) as work:
        first = await work.ended(await work.commit("lead.created", LEAD, aggregate_id="l-1"))
        second = await work.ended(await work.commit("lead.created", LEAD, aggregate_id="l-2"))
        mails = await work.added("EMAIL")
        assert [mail.data["to"] for mail in mails] == ["ada", "sam", "ada", "sam", "eve"]
        assert mails[-1].id == "own"
        assert [job.data for job in await work.added(QueueName("reports", "nightly"))] == [{"id": "l-1"}, {"id": "l-2"}]
    ada, sam, again, once_more = first.returnvalue["telling"]
    assert ada == again == once_more != sam
    assert not set(first.returnvalue["telling"]) & set(second.returnvalue["telling"])


async def test_a_job_carries_the_trace_that_it_is_part_of(handled: Any, redis_url: str) -> None:
    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))

    @on("lead.created")
    async def telling(event: EventJob, context: HandlerContext) -> str:
        with trace.use_span(span):
            await context.enqueue("EMAIL", NewJob("mail", {}, job_id="traced"))
        key = (await redis.call("KEYS", "*:email:traced"))[0]
        options = json.loads(await redis.call("HGET", key, "opts"))
        return str(json.loads(options["tm"])["traceparent"])

    redis = RedisConnection(redis_url, client_name="test")
    await redis.open()
    async with handled(telling) as work:
        ended = await work.ended(await work.commit("lead.created", LEAD))
    await redis.close()
    assert ended.returnvalue == {"telling": f"00-{0xABC:032x}-{0xDEF:016x}-01"}


async def test_a_queue_that_is_none_is_a_dead_letter_that_says_so(handled: Any) -> None:
    @on("lead.created")
    async def typing(event: EventJob, context: HandlerContext) -> None:
        await context.enqueue("EMIAL", NewJob("mail", {}))

    async with handled(typing) as work:
        ended = await work.ended(await work.commit("lead.created", LEAD))
    assert (ended.attempts, str(ended.failed_reason).split(" is no queue's key")[0]) == (
        1,
        "UNKNOWN_QUEUE: handler typing: EMIAL",
    )


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (datetime.now(UTC), "datetime is not JSON"),
        ({"at": datetime.now(UTC)}, "dict is not JSON, or holds something that is not"),
        (float("nan"), "float is not JSON"),
        ("x" * 5000, "it has 5002 bytes, and 4096 are kept"),
    ],
)
async def test_a_result_that_cannot_be_kept_is_left_out_and_said(handled: Any, result: Any, reason: str) -> None:
    @on("lead.created")
    async def resulting(event: EventJob, context: HandlerContext) -> Any:
        return result

    with capture_logs() as logs:
        async with handled(resulting) as work:
            ended = await work.ended(await work.commit("lead.created", LEAD))
    assert (ended.state, ended.attempts, ended.returnvalue) == ("completed", 1, {"resulting": None})
    (line,) = [line for line in logs if line["event"] == "handler_result_left_out"]
    assert (line["handler"], line["reason"][: len(reason)]) == ("resulting", reason)


async def test_whatever_a_handler_does_to_itself_is_its_own_failure(handled: Any) -> None:
    ran: list[str] = []

    @on("lead.created")
    async def leaving(event: EventJob, context: HandlerContext) -> None:
        sys.exit(3)

    @on("lead.updated")
    async def cancelling(event: EventJob, context: HandlerContext) -> None:
        raise asyncio.CancelledError

    @on("lead.*")
    async def well(event: EventJob, context: HandlerContext) -> None:
        ran.append(event.event_type)

    async with handled(leaving, cancelling, well) as work:
        left = await work.ended(await work.commit("lead.created", LEAD))
        cancelled = await work.ended(await work.commit("lead.updated", {**LEAD, "updatedAt": "now"}))
    assert left.failed_reason == "HANDLER_FAILED: handler leaving: SystemExit"
    assert cancelled.failed_reason == "HANDLER_FAILED: handler cancelling: CancelledError"
    assert sorted(ran) == ["lead.created", "lead.updated"]


async def test_a_handler_has_its_time_and_outcomes_are_its_own(handled: Any) -> None:
    @on("lead.created", timeout_seconds=0.05)
    async def slow(event: EventJob, context: HandlerContext) -> None:
        await asyncio.Event().wait()

    @on("lead.updated")
    async def asking(event: EventJob, context: HandlerContext) -> Outcome:
        return Retry("BUSY", "the other side asks for an hour", floor=3600)

    async with handled(slow, asking) as work:
        late = await work.ended(await work.commit("lead.created", LEAD))
        asked = await work.ended(await work.commit("lead.updated", {**LEAD, "updatedAt": "now"}))
    assert late.failed_reason == "TIME_LIMIT: handler slow: it took longer than 0.05 s"
    assert late.attempts == 3
    assert asked.state == "delayed"
    assert 3500 < asked.due_in <= 3600


async def test_the_end_of_the_block_interrupts_what_still_runs(handled: Any) -> None:
    ran: list[str] = []

    @on("lead.created")
    async def hanging(event: EventJob, context: HandlerContext) -> None:
        try:
            ran.append("began")
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ran.append("was interrupted")
            raise

    async def began() -> bool:
        return bool(ran)

    async with handled(hanging) as work:
        await work.commit("lead.created", LEAD)
        await until(began)
    assert ran == ["began", "was interrupted"]
