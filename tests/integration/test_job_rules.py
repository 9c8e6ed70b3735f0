"""From an event by a rule to a job in the database of the side effects: once, and through its outages."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import psycopg
import pytest

from embedded_stack import postgres_server
from embedded_stack.ports import free_port
from events_worker.context import HandlerContexts
from events_worker.deferrals import Deferrals
from events_worker.endpoints import RememberedEndpoints
from events_worker.handlers.routing import Routing
from events_worker.rules import load_rules
from events_worker.store import DeferralStore, EndpointStore, Transactions
from rule_files import event, rules_file
from started_workflows import executions, save_rule, workflows_through
from worker_ops.jobs.schema import migrate_jobs
from worker_runtime.bullmq.producer import JobQueue
from worker_runtime.outcome import DeadLetter, Defer, Done
from worker_runtime.postgres import Database
from worker_runtime.redis.connection import RedisConnection
from worker_runtime.settings import WorkerSettings
from worker_suite import running_suite, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from embedded_stack import Mailbox
    from events_worker.event import EventJob
    from worker_runtime.outcome import Outcome

RECEIPT = (
    "{name: receipt, event: order.placed, job: {task: email.send, queue: email, priority: HIGH, lock: payload.id,"
    " arguments: {tenantId: event.tenantId, to: payload.email}}}"
)
MAIL = "{name: mail, event: order.placed, channel: EMAIL, recipient: {email: payload.email}, subject: Hi, body: Hi}"
FLOW = "{name: flow, event: order.placed, when: payload.flow, workflow: {start: follow-up}}"
ORDER = {"id": "o-1", "email": "ada@example.com", "flow": False}


@dataclass
class Desk:
    routing: Routing
    contexts: HandlerContexts
    jobs_url: str
    redis: RedisConnection

    async def handle(self, of: EventJob) -> Outcome:
        return await self.routing.handle(of, self.contexts.of(of, "routing", receipts=False))

    async def jobs(self) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.jobs_url)
        try:
            rows = await connection.fetch("SELECT * FROM procrastinate_jobs ORDER BY id")
        finally:
            await connection.close()
        return [dict(row) | {"args": json.loads(row["args"])} for row in rows]

    async def mails(self) -> int:
        return int(await self.redis.call("LLEN", WorkerSettings().queue_name("EMAIL").key("wait")))


@asynccontextmanager
async def opened_desk(
    redis_url: str, database_url: str, jobs_url: str, folder: Path, rules: Sequence[str] = (RECEIPT, MAIL, FLOW)
) -> AsyncIterator[Desk]:
    redis = RedisConnection(redis_url, client_name="test", timeout_seconds=2.0)
    await redis.open()
    try:
        async with (
            Database(database_url) as database,
            Database(jobs_url) as jobs,
            Transactions(database_url, 1) as transactions,
        ):

            def queue(key: Any) -> JobQueue:
                return JobQueue(redis, WorkerSettings().queue_name(key))

            endpoints, workflows = RememberedEndpoints(EndpointStore(database)), workflows_through(transactions)
            read = load_rules(rules_file(folder, rules)).rules
            routing = Routing(read, queue, endpoints, workflows, Deferrals(DeferralStore(jobs)))
            yield Desk(routing, HandlerContexts(queue, transactions), jobs_url, redis)
    finally:
        await redis.close()


@pytest.fixture
async def desk(redis_url: str, database_url: str, jobs_database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with opened_desk(redis_url, database_url, jobs_database_url, tmp_path) as made:
        yield made


def placed(event_id: str | None = None, **payload: Any) -> EventJob:
    return event("order.placed", event_id or str(uuid4()), **ORDER | payload)


async def test_an_event_defers_one_job_however_often_it_is_handled(desk: Desk) -> None:
    of = placed()
    outcomes = [await desk.handle(of) for _ in range(3)]
    assert isinstance(outcomes[0], Done)
    assert outcomes.count(outcomes[0]) == 3
    (job,) = await desk.jobs()
    what = {key: job[key] for key in ("task_name", "queue_name", "priority", "lock", "scheduled_at", "status")}
    assert what == {
        "task_name": "email.send",
        "queue_name": "email",
        "priority": 10,
        "lock": "o-1",
        "scheduled_at": None,
        "status": "todo",
    }
    assert job["args"] == {"tenantId": "t-1", "to": "ada@example.com"}


async def test_many_events_defer_as_many_jobs_though_all_are_handled_twice_at_once(desk: Desk) -> None:
    events = [placed(id=f"o-{number}") for number in range(250)]
    outcomes = await asyncio.gather(*(desk.handle(of) for of in [*events, *reversed(events)]))
    assert all(isinstance(outcome, Done) for outcome in outcomes)
    assert sorted(job["lock"] for job in await desk.jobs()) == sorted(f"o-{number}" for number in range(250))
    assert await desk.mails() == 250


async def test_a_delay_counts_from_the_deferral(
    redis_url: str, database_url: str, jobs_database_url: str, tmp_path: Path
) -> None:
    rules = ["{name: later, event: order.placed, job: {task: x, delaySeconds: 3600}}"]
    async with opened_desk(redis_url, database_url, jobs_database_url, tmp_path, rules) as desk:
        assert isinstance(await desk.handle(placed()), Done)
        (job,) = await desk.jobs()
        assert 3590 < (job["scheduled_at"] - job["created_at"]).total_seconds() < 3610
        assert job["queue_name"] == "default"


async def test_what_postgresql_cannot_hold_is_written_as_escapes(desk: Desk) -> None:
    assert isinstance(await desk.handle(placed(id="a\0b", email="\ud800")), Done)
    (job,) = await desk.jobs()
    assert (job["lock"], job["args"]["to"]) == ("a\\x00b", "\\ud800")


async def test_where_a_workflow_is_refused_no_job_is_deferred(desk: Desk) -> None:
    outcome = await desk.handle(placed(flow=True))
    assert isinstance(outcome, DeadLetter)
    assert "organisation t-1 has no active workflow follow-up" in outcome.reason
    assert (await desk.jobs(), await desk.mails()) == ([], 0)


async def test_one_event_that_is_refused_keeps_nobody_else_s_job_out(
    redis_url: str, database_url: str, jobs_database_url: str, tmp_path: Path
) -> None:
    connection = await asyncpg.connect(jobs_database_url)
    await connection.execute("ALTER TABLE procrastinate_jobs ADD CHECK (lock <> 'o-3')")
    await connection.close()
    async with opened_desk(redis_url, database_url, jobs_database_url, tmp_path) as desk:
        outcomes = await asyncio.gather(*(desk.handle(placed(id=f"o-{number}")) for number in range(6)))
        assert [type(outcome) for outcome in outcomes] == [Done, Done, Done, DeadLetter, Done, Done]
        assert "rule receipt: job: the jobs database refuses it: CheckViolationError" in str(outcomes[3])
        assert sorted(job["lock"] for job in await desk.jobs()) == ["o-0", "o-1", "o-2", "o-4", "o-5"]
        assert await desk.mails() == 5


async def test_a_database_that_is_away_or_not_prepared_costs_nothing(
    redis_url: str, database_url: str, own_jobs: str, tmp_path: Path
) -> None:
    """It is no event's fault: the event comes again, and what needs no job is not held up."""
    connection = await asyncpg.connect(database_url)
    await save_rule(connection, "follow-up")
    away = urlsplit(own_jobs)._replace(netloc=f"postgres:postgres@127.0.0.1:{free_port()}").geturl()
    of = placed(flow=True)
    for url in (away, own_jobs):
        async with opened_desk(redis_url, database_url, url, tmp_path) as desk:
            for outcome in await asyncio.gather(*(desk.handle(of) for _ in range(200))):
                assert isinstance(outcome, Defer)
                assert (outcome.code, outcome.seconds) == ("JOBS_DATABASE_UNAVAILABLE", 5.0)
            assert await desk.mails() == 0
            assert isinstance(await desk.handle(event("order.cancelled")), Done)
    migrate_jobs(own_jobs, lambda _: None)
    async with opened_desk(redis_url, database_url, own_jobs, tmp_path) as desk:
        assert isinstance(await desk.handle(of), Done)
        assert (len(await desk.jobs()), await desk.mails(), len(await executions(connection))) == (1, 1, 1)
    await connection.close()


@pytest.fixture
async def own_jobs(database_url: str) -> AsyncIterator[str]:
    """A database in which nothing has been prepared for jobs."""
    name = f"bare_{uuid4().hex}"
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"CREATE DATABASE {name}")
    yield urlsplit(database_url)._replace(path=f"/{name}").geturl()
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


def count_jobs(url: str) -> int:
    with psycopg.connect(url) as connection:
        (count,) = connection.execute("SELECT count(*) FROM procrastinate_jobs").fetchall()[0]
        return int(count)


def wait_until_jobs(url: str, number: int) -> None:
    wait_for(lambda: count_jobs(url) >= number, 40, f"{number} jobs", every=0.1)


async def test_events_of_an_outage_become_jobs_after_it_each_once(
    redis_url: str, database_url: str, mailbox: Mailbox, tmp_path: Path
) -> None:
    """The worker as a process, and the server of the jobs killed under it."""
    rules = rules_file(tmp_path, ["{name: r, event: lead.created, job: {task: t, lock: payload.leadId}}"])
    with (
        postgres_server(tmp_path / "jobs") as server,
        running_suite(redis_url, database_url, mailbox, tmp_path) as suite,
    ):
        migrate_jobs(server.url, lambda _: None)
        worker = suite.events_worker(EVENT_RULES_FILE=str(rules), JOB_QUEUE_DATABASE_URL=server.url).ready()
        events = set(suite.commit_leads(20))
        await asyncio.to_thread(wait_until_jobs, server.url, 20)
        server.kill()
        events |= set(suite.commit_leads(20))
        await asyncio.to_thread(wait_for, lambda: worker.logged("event_waits_for_jobs_database"))
        assert worker.status("/health/ready") == 200
        server.start()
        await asyncio.to_thread(wait_until_jobs, server.url, 40)
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SELECT count(DISTINCT lock) FROM procrastinate_jobs") == 20
        assert await connection.fetchval("SELECT count(*) FROM jobs_ops.deferrals") == 40
        await connection.close()
        assert worker.metric("intelliflow_worker_jobs_failed_total") == 0
        assert worker.metric("intelliflow_worker_retries_total") == 0
        assert len(events) == 40
