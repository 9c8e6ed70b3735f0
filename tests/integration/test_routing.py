"""From an event by its rules to jobs in a real Redis, some of them to endpoints in a real PostgreSQL."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from events_worker.context import HandlerContexts
from events_worker.deferrals import Deferrals
from events_worker.endpoints import REMEMBERED_SECONDS, RememberedEndpoints
from events_worker.handlers.routing import MOST_IDS_TOLD, Routing
from events_worker.rules import load_rules
from events_worker.store import EndpointStore, Transactions
from notifications_worker.notification import Notification
from rule_files import event, rules_file
from started_workflows import workflows_through
from worker_runtime.bullmq.producer import JobQueue
from worker_runtime.outcome import DeadLetter, Done
from worker_runtime.postgres import Database, DatabaseUnavailable
from worker_runtime.redis.connection import RedisConnection, RedisError
from worker_runtime.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from events_worker.event import EventJob
    from worker_runtime.outcome import Outcome

QUEUES = ("EMAIL", "SMS", "WEBHOOK", "TEXT_EXTRACTION")
EVERYTHING = (
    "{name: all, event: document.uploaded, webhook: {source: /crm},"
    " ingest: {documentId: payload.id, sourceUrl: payload.url},"
    " notify: {channel: EMAIL, recipient: {email: payload.mail}, subject: New, body: 'Look at {{ payload.id }}'}}"
)
UPLOADED = {"id": "d-1", "url": "s3://bucket/d-1.pdf", "mail": "ada@example.com"}
REGISTER = "INSERT INTO tenant_webhook_endpoint (tenant_id, url, event_patterns) VALUES ($1, $2, $3)"
SWITCH_OFF = "UPDATE tenant_webhook_endpoint SET active = false WHERE url = $1"


def queues(redis: RedisConnection) -> Any:
    return lambda key: JobQueue(redis, WorkerSettings().queue_name(key))


@dataclass
class Desk:
    """The handler, and what it has made."""

    database: Database
    redis: RedisConnection
    routing: Routing
    transactions: Transactions
    seconds: list[float] = field(default_factory=lambda: [0.0])

    async def handle(self, of: EventJob) -> Outcome:
        contexts = HandlerContexts(queues(self.redis), self.transactions)
        return await self.routing.handle(of, contexts.of(of, "routing", receipts=False))

    async def jobs(self, key: str) -> dict[str, dict[str, Any]]:
        """Return what waits in a queue, by job id."""
        name = WorkerSettings().queue_name(key)
        ids = [job_id.decode() for job_id in await self.redis.call("LRANGE", name.key("wait"), 0, -1)]
        return {job_id: json.loads(await self.redis.call("HGET", name.key(job_id), "data")) for job_id in ids}

    async def counts(self) -> dict[str, int]:
        return {key: len(jobs) for key in QUEUES if (jobs := await self.jobs(key))}

    async def register(self, url: str, *patterns: str, tenant: str = "t-1") -> None:
        async with self.database.connected() as connection:
            await connection.execute(REGISTER, tenant, url, patterns or ["*"])

    async def switch_off(self, url: str) -> None:
        async with self.database.connected() as connection:
            await connection.execute(SWITCH_OFF, url)


@asynccontextmanager
async def opened_desk(redis_url: str, database_url: str, path: Path) -> AsyncIterator[Desk]:
    redis = RedisConnection(redis_url, client_name="test", timeout_seconds=2.0)
    await redis.open()
    seconds = [0.0]
    try:
        async with Database(database_url) as database, Transactions(database_url, 1) as transactions:
            endpoints = RememberedEndpoints(EndpointStore(database), monotonic=lambda: seconds[0])
            workflows = workflows_through(transactions)
            routing = Routing(load_rules(path).rules, queues(redis), endpoints, workflows, Deferrals(None))
            yield Desk(database, redis, routing, transactions, seconds)
    finally:
        await redis.close()


@pytest.fixture
async def desk(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with opened_desk(redis_url, database_url, rules_file(tmp_path, [EVERYTHING])) as made:
        yield made


async def test_one_event_makes_a_job_of_each_action_and_endpoint(desk: Desk) -> None:
    await desk.register("https://one.example/hook")
    await desk.register("https://two.example/hook", "lead.*", "document.*")
    await desk.register("https://three.example/hook", "lead.*")
    await desk.register("https://four.example/hook")
    await desk.switch_off("https://four.example/hook")
    await desk.register("https://five.example/hook", tenant="t-2")
    of = event("document.uploaded", **UPLOADED)
    outcome = await desk.handle(of)
    assert isinstance(outcome, Done)
    assert await desk.counts() == {"EMAIL": 1, "WEBHOOK": 2, "TEXT_EXTRACTION": 1}
    assert sorted(outcome.result) == sorted([job_id for key in QUEUES for job_id in await desk.jobs(key)])
    assert await desk.handle(of) == outcome
    assert await desk.counts() == {"EMAIL": 1, "WEBHOOK": 2, "TEXT_EXTRACTION": 1}
    await desk.handle(event("document.uploaded", event_id="another", **UPLOADED))
    assert await desk.counts() == {"EMAIL": 2, "WEBHOOK": 4, "TEXT_EXTRACTION": 2}


async def test_a_webhook_carries_the_event_as_a_cloud_event(desk: Desk) -> None:
    await desk.register("https://one.example/hook?token=x")
    of = event("document.uploaded", **UPLOADED, note="Grüße 🎉")
    await desk.handle(of)
    ((job_id, data),) = (await desk.jobs("WEBHOOK")).items()
    notification = Notification.model_validate(data)
    assert notification.notification_id == job_id
    assert (notification.channel, notification.tenant_id) == ("WEBHOOK", "t-1")
    assert notification.recipient.webhook_url == "https://one.example/hook?token=x"
    async with desk.database.connected() as connection:
        assert notification.recipient.id == await connection.fetchval("SELECT id::text FROM tenant_webhook_endpoint")
    assert data["metadata"]["contentType"] == "application/cloudevents+json; charset=utf-8"
    body = json.loads(notification.content.body or "")
    assert (
        body
        | {
            "specversion": "1.0",
            "id": of.event_id,
            "type": "document.uploaded",
            "source": "/crm",
            "data": of.payload,
        }
        == body
    )


async def test_a_queue_that_fails_half_way_is_completed_by_the_retry(
    desk: Desk, redis_url: str, database_url: str, tmp_path: Path
) -> None:
    await desk.redis.call("ACL", "SETUSER", "router", "on", ">pw", "&*", "+@all", "~intelliflow:notifications:*")
    as_router = (
        urlsplit(redis_url)._replace(netloc=f"router:pw@{urlsplit(redis_url).netloc.rpartition('@')[2]}").geturl()
    )
    of = event("document.uploaded", **UPLOADED)
    try:
        await desk.register("https://one.example/hook")
        async with opened_desk(as_router, database_url, rules_file(tmp_path, [EVERYTHING])) as narrow:
            with pytest.raises(RedisError, match="NOPERM"):
                await narrow.handle(of)
            assert await desk.counts() == {"EMAIL": 1}
            await desk.redis.call("ACL", "SETUSER", "router", "~*")
            assert isinstance(await narrow.handle(of), Done)
    finally:
        await desk.redis.call("ACL", "DELUSER", "router")
    assert await desk.counts() == {"EMAIL": 1, "WEBHOOK": 1, "TEXT_EXTRACTION": 1}


async def test_an_event_that_does_not_fit_one_action_makes_nothing_at_all(desk: Desk) -> None:
    await desk.register("https://one.example/hook")
    outcome = await desk.handle(event("document.uploaded", **{**UPLOADED, "mail": ""}))
    assert outcome == DeadLetter("RULE_FAILED", "rule all: recipient.email: `payload.mail`: is empty or not a text")
    assert await desk.counts() == {}


async def test_a_number_that_json_cannot_write_is_nobody_s_bug(desk: Desk) -> None:
    await desk.register("https://one.example/hook")
    outcome = await desk.handle(event("document.uploaded", **UPLOADED, share=float("nan")))
    assert outcome == DeadLetter("RULE_FAILED", "rule all: webhook: the event holds a number that JSON cannot write")


async def test_endpoints_are_remembered_for_a_moment(desk: Desk) -> None:
    async def made(event_id: str) -> int:
        before = (await desk.counts()).get("WEBHOOK", 0)
        await desk.handle(event("document.uploaded", event_id=event_id, **UPLOADED))
        return (await desk.counts()).get("WEBHOOK", 0) - before

    assert await made("e-1") == 0
    await desk.register("https://one.example/hook")
    assert await made("e-2") == 0
    desk.seconds[0] += REMEMBERED_SECONDS
    assert await made("e-3") == 1
    await desk.switch_off("https://one.example/hook")
    assert await made("e-4") == 1
    desk.seconds[0] += REMEMBERED_SECONDS
    assert await made("e-5") == 0


async def test_a_tenant_with_many_endpoints_has_a_small_result(desk: Desk) -> None:
    for number in range(150):
        await desk.register(f"https://{number}.example/hook")
    outcome = await desk.handle(event("document.uploaded", **UPLOADED))
    assert isinstance(outcome, Done)
    assert len(outcome.result) == MOST_IDS_TOLD
    assert len(json.dumps(outcome.result)) < 4096
    assert (await desk.counts())["WEBHOOK"] == 150


async def test_without_the_database_the_event_waits() -> None:
    nowhere = "postgresql://u:p@127.0.0.1:1/d"
    async with Database(nowhere) as database:
        endpoints = RememberedEndpoints(EndpointStore(database))
        with pytest.raises(DatabaseUnavailable):
            await endpoints.registered("t-1", "lead.created")


@pytest.mark.parametrize(
    ("url", "patterns", "tenant"),
    [
        ("ftp://one.example", ["*"], "t-1"),
        ("https://", ["*"], "t-1"),
        ("https://one.example", [], "t-1"),
        ("https://one.example", ["lead. created"], "t-1"),
        ("https://one.example", ["lead.created", ""], "t-1"),
        ("https://one.example", ["lead.created", None], "t-1"),
        ("https://one.example", ["*.created"], "t-1"),
        ("https://one.example", ["*"], ""),
    ],
)
async def test_an_endpoint_that_could_not_work_is_refused(
    database_url: str, url: str, patterns: list[str], tenant: str
) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(REGISTER, "t-1", "https://fine.example", ["*", "lead.*", "lead.created"])
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(REGISTER, tenant, url, patterns)
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(REGISTER, "t-1", "https://fine.example", ["*"])
    finally:
        await connection.close()
