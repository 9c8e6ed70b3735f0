"""The tasks that every jobs-worker has, run by its loops: what arrives, how often, and what a mistake is told as."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from engine_harness import until
from jobs_harness import Desk
from jobs_worker.app import job_queue
from jobs_worker.tasks import api, email
from jobs_worker.worker import JobsWorker
from scripted_http import CLOSE, ScriptedHttp, answer
from worker_runtime.embedding import embedded
from worker_runtime.redis.connection import RedisConnection
from worker_runtime.settings import WorkerSettings, load
from worker_runtime.testing import jobs_waiting_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from embedded_stack import RedisServer

MAIL = {"tenantId": "t-1", "to": "ada@example.com", "subject": "Your order", "body": "It is on its way."}


@pytest.fixture
async def at(jobs_database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setenv("JOB_QUEUE_DATABASE_URL", jobs_database_url)
    monkeypatch.setenv("JOB_QUEUE_POLL_INTERVAL_MS", "50")
    monkeypatch.setenv("EGRESS_ALLOWED_CIDRS", "127.0.0.1/32")
    async with job_queue.open_async():
        yield Desk(jobs_database_url, job_queue)


@asynccontextmanager
async def working() -> AsyncIterator[None]:
    async with embedded(JobsWorker, load(JobsWorker.settings_type)) as worker:
        await until(lambda: ready(worker))
        yield


async def ready(worker: Any) -> bool:
    return worker.unready_because is None


async def again_now(at: Desk, job: int) -> None:
    """Let the next attempt be due: what a failed one waits for is tested with the schedule."""
    await at.rows("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE id = $1 AND status = 'todo'", job)


async def until_done(at: Desk, job: int) -> None:
    async with asyncio.timeout(20):
        while (await at.job(job))["status"] != "succeeded":
            await again_now(at, job)
            await asyncio.sleep(0.05)  # Nothing tells of a change in a table.


async def mails(redis_url: str) -> list[Any]:
    redis = RedisConnection(redis_url, client_name="test")
    await redis.open()
    try:
        return await jobs_waiting_in(redis, WorkerSettings().queue_name("EMAIL"))
    finally:
        await redis.close()


async def test_who_opened_the_queue_first_keeps_it_when_the_worker_goes(at: Desk) -> None:
    for _ in range(2):
        async with working():
            pass
        job = await email.send.defer_async(**MAIL)
        assert (await at.job(job))["status"] == "todo"


class TestEmail:
    async def test_is_handed_to_the_notifications_worker(
        self, at: Desk, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REDIS_URL", redis_url)
        async with working():
            jobs = [await email.send.defer_async(**MAIL) for _ in range(2)]
            for job in jobs:
                await at.until(job, "succeeded")
        first, second = await mails(redis_url)
        assert first.id == first.data["notificationId"] != second.id
        assert first.data == {
            "notificationId": first.id,
            "tenantId": "t-1",
            "channel": "EMAIL",
            "priority": "NORMAL",
            "recipient": {"email": "ada@example.com"},
            "content": {"subject": "Your order", "body": "It is on its way."},
            "metadata": {"jobId": str(jobs[0]), "task": "email.send"},
        }

    async def test_is_the_same_mail_though_its_job_runs_again(
        self, at: Desk, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As it does when its worker is killed between the mail and the note of it."""
        monkeypatch.setenv("REDIS_URL", redis_url)
        async with working():
            job = await email.send.defer_async(
                tenant_id="t-1", to="ada@example.com", template="lead-welcome", data={"a": 1}, priority="URGENT"
            )
            for attempt in (1, 2, 3):
                row = await at.until(job, "succeeded")
                assert row["attempts"] == attempt
                await at.rows(
                    "UPDATE procrastinate_jobs SET status = 'todo' WHERE id = $1", job
                ) if attempt < 3 else None
        (mail,) = await mails(redis_url)
        assert mail.data["content"] == {"templateId": "lead-welcome", "templateData": {"a": 1}}

    async def test_waits_for_redis_at_no_cost(
        self, at: Desk, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The worker itself does without: it starts, and works what needs no Redis."""
        monkeypatch.setenv("REDIS_URL", own_redis.url)
        own_redis.stop()
        async with working():
            job = await email.send.defer_async(**MAIL)
            await at.soon("SELECT scheduled_at > now() FROM procrastinate_jobs WHERE id = $1", job)
            own_redis.start()
            await again_now(at, job)
            row = await at.until(job, "succeeded")
        assert (row["attempts"], await at.errors(job)) == (1, [])
        assert len(await mails(own_redis.url)) == 1

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"to": None}, "to: Input should be a valid string"),
            ({"to": " "}, "to is empty"),
            ({"tenantId": ...}, "tenantId is missing"),
            ({"body": ...}, "needs either template (with data) or body (with subject)"),
            ({"data": {"a": 1}}, "data is for a template; a body has its values in the text"),
            ({"priority": "high"}, "priority: Input should be 'LOW', 'NORMAL', 'HIGH' or 'URGENT'"),
            ({"subjet": "x", "to": ...}, "to is missing; subjet is no argument of this task"),
        ],
    )
    async def test_a_mistake_is_final_and_names_the_argument(
        self, at: Desk, changes: dict[str, Any], complaint: str
    ) -> None:
        async with working():
            arguments = {key: value for key, value in (MAIL | changes).items() if value is not ...}
            job = await email.send.defer_async(**arguments)
            await at.until(job, "failed")
        assert await at.errors(job) == [(1, f"PermanentError: INVALID_ARGUMENTS: {complaint}")]
        (traceback,) = await at.rows("SELECT error_traceback FROM procrastinate_events WHERE type = 'error'")
        assert "ada@example.com" not in traceback[0]
        assert "input_value" not in traceback[0]


class TestApi:
    async def test_sends_what_it_is_told_once(self, at: Desk) -> None:
        async with working(), ScriptedHttp() as server:
            job = await api.call.defer_async(
                method="PUT", url=f"{server.url}/orders/7", json={"total": 5}, headers={"x-tenant": "t-1"}
            )
            await at.until(job, "succeeded")
            (request,) = server.requests
        assert (request.line, json.loads(request.body)) == ("PUT /hook/orders/7 HTTP/1.1", {"total": 5})
        assert request.headers["x-tenant"] == "t-1"
        assert request.headers["content-type"] == "application/json"
        assert len(request.headers["idempotency-key"]) == 36

    async def test_is_tried_again_under_the_same_key_no_sooner_than_it_is_asked_to(self, at: Desk) -> None:
        async with working(), ScriptedHttp() as server:
            server.will(answer(503, Retry_After="40"), answer(429), answer(200))
            job = await api.call.defer_async(method="POST", url=server.url, json={})
            await at.soon("SELECT attempts > 0 AND status = 'todo' FROM procrastinate_jobs WHERE id = $1", job)
            row = await at.job(job)
            assert 35 < (row["scheduled_at"] - row["created_at"]).total_seconds() < 60
            await until_done(at, job)
            keys = [request.headers["idempotency-key"] for request in server.requests]
        assert [error.split(": ")[1] for _, error in await at.errors(job)] == ["HTTP_503", "HTTP_429"]
        assert (len(keys), len(set(keys))) == (3, 1)

    async def test_another_job_has_another_key_and_no_answer_is_no_end(self, at: Desk) -> None:
        async with working(), ScriptedHttp() as server:
            server.will(CLOSE)
            jobs = [await api.call.defer_async(method="POST", url=server.url, json={})]
            await until_done(at, jobs[0])
            jobs.append(await api.call.defer_async(method="POST", url=server.url, json={}))
            await until_done(at, jobs[1])
            keys = [request.headers["idempotency-key"] for request in server.requests]
        assert [[error.split(": ")[1] for _, error in await at.errors(job)] for job in jobs] == [["NO_ANSWER"], []]
        assert keys[0] == keys[1] != keys[2]

    @pytest.mark.parametrize(("status", "sentence"), [(404, "the server refused"), (302, "redirects are not followed")])
    async def test_any_other_status_is_final(self, at: Desk, status: int, sentence: str) -> None:
        async with working(), ScriptedHttp() as server:
            server.will(answer(status, Location="/elsewhere"))
            job = await api.call.defer_async(method="GET", url=server.url)
            await at.until(job, "failed")
            assert len(server.requests) == 1
        assert await at.errors(job) == [(1, f"PermanentError: HTTP_{status}: {sentence}")]

    async def test_a_status_may_be_expected(self, at: Desk) -> None:
        async with working(), ScriptedHttp() as server:
            server.will(answer(409), answer(204))
            jobs = [await api.call.defer_async(method="DELETE", url=server.url, expect=[409])]
            await at.until(jobs[0], "succeeded")
            jobs.append(await api.call.defer_async(method="DELETE", url=server.url, expect=[409]))
            await at.until(jobs[1], "failed")

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"url": "http://169.254.169.254/latest"}, "EGRESS_REFUSED: "),
            ({"url": "ftp://example.com"}, "INVALID_ARGUMENTS: url: "),
            ({"url": ...}, "INVALID_ARGUMENTS: url is missing"),
            ({"method": "TRACE"}, "INVALID_ARGUMENTS: method: Input should be 'GET', "),
            ({"method": "GET"}, "INVALID_ARGUMENTS: json is not for GET"),
            ({"headers": {"Host": "x"}}, "INVALID_ARGUMENTS: headers: Host is set by the worker"),
            ({"headers": {"X-A": "a\nb"}}, "INVALID_ARGUMENTS: headers: X-A is not one line of ASCII"),
            ({"expect": [99]}, "INVALID_ARGUMENTS: expect.0: Input should be greater than or equal to 200"),
            ({"timeoutSeconds": 500}, "INVALID_ARGUMENTS: timeoutSeconds: Input should be less than or equal to 110"),
        ],
    )
    async def test_what_may_not_be_sent_is_final(self, at: Desk, changes: dict[str, Any], complaint: str) -> None:
        arguments = {"method": "POST", "url": "https://example.com/", "json": {}} | changes
        async with working():
            job = await api.call.defer_async(**{key: value for key, value in arguments.items() if value is not ...})
            await at.until(job, "failed")
        ((attempt, error),) = await at.errors(job)
        assert attempt == 1
        assert error.startswith(f"PermanentError: {complaint}")
