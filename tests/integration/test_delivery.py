"""What becomes of a notification, with a real Redis and a mail server that does what the test says."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from engine_harness import until
from mails import stationery
from notifications_worker.channels.email import EmailChannel
from notifications_worker.channels.smtp_pool import SmtpPool
from notifications_worker.channels.smtp_session import Patience, Relay
from notifications_worker.delivery import Delivery
from notifications_worker.delivery import Desk as Wiring
from notifications_worker.ledger import RedisLedger
from notifications_worker.limits import Limits
from notifications_worker.notification import Notification
from notifications_worker.preferences import Preferences
from notifications_worker.store import PostgresLedger, SuppressionStore
from notifications_worker.suppression import RedisSuppressions
from scripted_smtp import ACCEPT_AND_CLOSE, HANG, After, ScriptedSmtp
from worker_runtime.breaker import Breaker, Breakers
from worker_runtime.clock import SystemClock
from worker_runtime.delivery_state import DeliveryRecords, RateLimits, SuppressedAddresses
from worker_runtime.metrics import Metrics
from worker_runtime.outcome import DeadLetter, Defer, Done, Hold, Outcome, PermanentError, Retry
from worker_runtime.postgres import Database
from worker_runtime.redis.connection import RedisConnection
from worker_runtime.testing import job_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from embedded_stack import RedisServer
    from notifications_worker.ledger import Ledger
    from notifications_worker.limits import TenantLimit
    from notifications_worker.suppression import Suppressions
    from worker_runtime.job import Job

EMAIL = "intelliflow:notifications:email"
IMPATIENT = Patience(connect=0.5, command=0.5, message=0.5, goodbye=0.5)
RESET_MS = 300


@dataclass
class Desk:
    """One worker's delivery, its mail server, and the breaker between them."""

    server: ScriptedSmtp
    delivery: Delivery
    breaker: Breaker
    metrics: Metrics
    suppressions: Suppressions
    numbers: list[int] = field(default_factory=lambda: [0])

    def job(self, *, job_id: str | None = None, **changes: Any) -> Job[Notification]:
        self.numbers[0] += 1
        payload: dict[str, Any] = {
            "notificationId": f"n-{self.numbers[0]}",
            "tenantId": "t-1",
            "channel": "EMAIL",
            "recipient": {"email": "ada@example.com"},
            "content": {"subject": "Hello", "body": "Hello Ada"},
        }
        notification = Notification.model_validate(payload | changes)
        name = job_id or notification.notification_id
        return job_for(notification, job_id=name, name="send", queue=EMAIL, created_at=1_767_225_600.0)

    async def deliver(self, **changes: Any) -> Outcome:
        return await self.delivery(self.job(**changes))

    async def may_be_tried(self) -> bool:
        return await self.breaker.open_for() == 0

    def counted(self, outcome: str) -> float:
        labels = {"channel": "EMAIL", "provider": "smtp", "outcome": outcome}
        return self.metrics.registry.get_sample_value("intelliflow_delivery_total", labels) or 0.0


@asynccontextmanager
async def desk_at(
    redis_url: str,
    server: ScriptedSmtp,
    database_url: str | None = None,
    tenant: TenantLimit | None = None,
    preferences: Preferences | None = None,
    patience: float = 5.0,
    **relay: Any,
) -> AsyncIterator[Desk]:
    redis = RedisConnection(redis_url, client_name="test", timeout_seconds=patience)
    metrics = Metrics("notifications-worker")
    chosen: dict[str, Any] = {"tls": "off", "patience": IMPATIENT, **relay}
    pool = SmtpPool(Relay("127.0.0.1", server.port, **chosen))
    channel = EmailChannel(pool, stationery())
    breaker = Breakers(redis, "intelliflow", metrics.dependencies, threshold=5, reset_ms=RESET_MS).of("smtp", 60.0)
    await redis.open()
    try:
        async with books_of(redis, database_url) as (ledger, suppressions):
            wiring = Wiring(
                channel,
                lambda _: breaker,
                ledger,
                suppressions,
                Limits(RateLimits(redis, "intelliflow"), "EMAIL", tenant),
                preferences or Preferences(SystemClock()),
                metrics.delivery,
                SystemClock(),
                Random(1),
            )
            yield Desk(server, Delivery(wiring), breaker, metrics, suppressions)
    finally:
        await pool.close()
        await redis.close()


@asynccontextmanager
async def books_of(redis: RedisConnection, database_url: str | None) -> AsyncIterator[tuple[Ledger, Suppressions]]:
    if database_url is None:
        addresses = SuppressedAddresses(redis, "intelliflow")
        yield RedisLedger(DeliveryRecords(redis, "intelliflow")), RedisSuppressions(addresses)
        return
    async with Database(database_url) as looks, Database(database_url) as begins, Database(database_url) as ends:
        yield PostgresLedger(looks, begins, ends), SuppressionStore(looks, ends)


@pytest_asyncio.fixture(params=["redis", "postgres"])
async def desk(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    database_url = request.getfixturevalue("database_url") if request.param == "postgres" else None
    async with ScriptedSmtp() as server, desk_at(redis_url, server, database_url) as desk:
        yield desk


def result_of(outcome: Outcome) -> dict[str, Any]:
    assert isinstance(outcome, Done)
    assert isinstance(outcome.result, dict)
    return outcome.result


async def test_an_accepted_mail_is_done(desk: Desk) -> None:
    result = result_of(await desk.deliver())

    assert set(result) == {
        "notificationId",
        "channel",
        "success",
        "providerMessageId",
        "deliveredAt",
        "deliveryTimeMs",
    }
    assert (result["notificationId"], result["channel"], result["success"]) == ("n-1", "EMAIL", True)
    assert result["providerMessageId"] == "4F2A"
    assert len(desk.server.accepted) == 1
    assert desk.counted("accepted") == 1


async def test_what_was_recorded_is_never_sent_again(desk: Desk) -> None:
    first = result_of(await desk.deliver(notificationId="once"))
    same_job = result_of(await desk.deliver(notificationId="once"))
    other_job = result_of(await desk.deliver(notificationId="once", job_id="another"))

    assert len(desk.server.accepted) == 1
    for again in (same_job, other_job):
        assert (again["success"], again["providerMessageId"]) == (True, first["providerMessageId"])


async def test_another_tenants_notification_with_that_id_is_another_notification(desk: Desk) -> None:
    await desk.deliver(notificationId="once")
    await desk.deliver(notificationId="once", tenantId="t-2")

    assert len(desk.server.accepted) == 2


async def test_what_has_expired_completes_without_being_sent(desk: Desk) -> None:
    result = result_of(await desk.deliver(expiresAt="2020-01-01T00:00:00Z"))

    assert (result["success"], result["error"]) == (False, "expired")
    assert "providerMessageId" not in result
    assert desk.server.conversations == []


async def test_expired_comes_before_scheduled(desk: Desk) -> None:
    outcome = await desk.deliver(expiresAt="2020-01-01T00:00:00Z", scheduledAt="2100-01-01T00:00:00Z")

    assert isinstance(outcome, Done)


async def test_what_is_scheduled_waits_for_its_time(desk: Desk) -> None:
    outcome = await desk.deliver(scheduledAt="2100-01-01T00:00:00Z", expiresAt="2100-01-02T00:00:00Z")

    assert isinstance(outcome, Defer)
    assert (outcome.code, outcome.planned) == ("SCHEDULED", True)
    assert outcome.seconds == pytest.approx(4_102_444_800 - time.time(), abs=60)
    assert desk.server.conversations == []


async def test_what_was_scheduled_for_the_past_is_sent(desk: Desk) -> None:
    assert result_of(await desk.deliver(scheduledAt="2020-01-01T00:00:00Z"))["success"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"channel": "SMS"}, "INVALID_PAYLOAD: channel is not EMAIL, which this queue is for"),
        ({"recipient": {"phone": "+15005550006"}}, "INVALID_PAYLOAD: recipient.email is missing"),
        ({"content": {"templateId": "lead-assigned"}}, "TEMPLATE_ERROR: template 'lead-assigned' (subject): 'leadId'"),
        ({"content": {"body": "b", "attachments": [{"filename": "a"}]}}, "INVALID_PAYLOAD: content.attachments[0] "),
    ],
)
async def test_what_can_never_be_sent_says_why(desk: Desk, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(PermanentError) as caught:
        await desk.deliver(**changes)

    assert str(caught.value).startswith(reason)
    assert desk.server.conversations == []


@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA", "MESSAGE"])
async def test_a_refused_mail_is_dead_and_the_circuit_closed(desk: Desk, at: Any) -> None:
    desk.server.always(at, "550 5.7.1 <ada@example.com> not wanted")
    outcomes = [await desk.deliver() for _ in range(6)]

    assert {type(outcome) for outcome in outcomes} == {DeadLetter}
    assert isinstance(outcomes[0], DeadLetter)
    assert outcomes[0].code == "PROVIDER_REJECTED"
    assert "ada" not in outcomes[0].reason
    assert await desk.breaker.open_for() == 0
    assert desk.counted("rejected") == 6


async def test_an_address_that_does_not_exist_gets_no_further_mail(desk: Desk) -> None:
    desk.server.will("RCPT", "550 5.1.1 no such user")
    codes = [getattr(await desk.deliver(), "code", None) for _ in range(2)]

    assert codes == ["PROVIDER_REJECTED", "SUPPRESSED"]
    assert desk.server.times("RCPT") == 1


async def test_a_refused_mail_can_be_sent_by_another_job(desk: Desk) -> None:
    desk.server.will("RCPT", "550 5.7.1 not wanted")
    await desk.deliver(notificationId="again")

    assert result_of(await desk.deliver(notificationId="again", job_id="after-the-mailbox-was-made"))["success"]


async def test_greylisting_waits_and_then_is_accepted(desk: Desk) -> None:
    desk.server.will("RCPT", "451 4.7.1 greylisted, come back in 5 minutes")
    outcome = await desk.deliver(notificationId="grey")

    assert isinstance(outcome, Retry)
    assert (outcome.code, outcome.floor) == ("GREYLISTED", 300)
    assert result_of(await desk.deliver(notificationId="grey"))["success"]


async def test_an_outage_costs_no_attempt_and_opens_the_circuit(redis_url: str) -> None:
    async with ScriptedSmtp() as gone:
        pass
    async with desk_at(redis_url, gone) as desk:
        outcomes = [await desk.deliver() for _ in range(7)]

        assert [type(outcome) for outcome in outcomes] == [Defer] * 5 + [Hold] * 2
        assert await desk.breaker.open_for() > 0
        assert desk.counted("deferred") == 5


async def test_a_wrong_password_opens_the_circuit_at_once(redis_url: str) -> None:
    async with ScriptedSmtp() as server, desk_at(redis_url, server, username="worker", password="wrong") as desk:
        server.always("AUTH", "535 5.7.8 wrong password")
        refused, held = await desk.deliver(), await desk.deliver()

        assert isinstance(refused, Defer)
        assert refused.code == "PROVIDER_MISCONFIGURED"
        assert refused.seconds >= RESET_MS / 1000 / 2
        assert isinstance(held, Hold)
        assert server.times("AUTH") == 1


async def test_after_an_outage_one_probe_goes_and_then_everything(desk: Desk) -> None:
    desk.server.always("BANNER", "421 4.3.2 maintenance")
    for _ in range(5):
        await desk.deliver()
    desk.server.healed()
    answer = asyncio.Event()
    desk.server.will("MESSAGE", After(answer, "250 2.0.0 kept"))
    await until(desk.may_be_tried)

    probing = asyncio.create_task(desk.deliver())
    await desk.server.reached("MESSAGE")
    others = await asyncio.gather(*(desk.deliver() for _ in range(20)))
    answer.set()

    assert isinstance(await probing, Done)
    assert {type(outcome) for outcome in others} == {Hold}
    assert {type(await desk.deliver()) for _ in range(5)} == {Done}


async def test_an_unknown_end_is_sent_again_as_the_same_mail(desk: Desk) -> None:
    desk.server.will("MESSAGE", ACCEPT_AND_CLOSE)
    outcome = await desk.deliver(notificationId="twice")

    assert isinstance(outcome, Retry)
    assert outcome.code == "DELIVERY_UNKNOWN"
    assert desk.counted("unknown") == 1
    assert result_of(await desk.deliver(notificationId="twice"))["success"]
    first, second = desk.server.accepted
    assert first.content == second.content


async def test_unknown_ends_say_nothing_about_the_circuit(desk: Desk) -> None:
    desk.server.always("MESSAGE", ACCEPT_AND_CLOSE)
    outcomes = [await desk.deliver() for _ in range(7)]

    assert {type(outcome) for outcome in outcomes} == {Retry}
    assert await desk.breaker.open_for() == 0


async def test_two_jobs_with_one_notification_send_one_mail(desk: Desk) -> None:
    answer = asyncio.Event()
    desk.server.will("MESSAGE", After(answer, "250 2.0.0 kept"))
    first = asyncio.create_task(desk.deliver(notificationId="one", job_id="a"))
    await desk.server.reached("MESSAGE")
    second = await desk.deliver(notificationId="one", job_id="b")
    answer.set()

    assert isinstance(second, Defer)
    assert second.code == "DELIVERY_IN_PROGRESS"
    assert isinstance(await first, Done)
    assert len(desk.server.accepted) == 1


async def test_a_killed_attempt_does_not_make_the_next_one_wait(desk: Desk) -> None:
    desk.server.will("MESSAGE", HANG)
    killed = asyncio.create_task(desk.deliver(notificationId="one"))
    await desk.server.reached("MESSAGE")
    killed.cancel()
    with pytest.raises(asyncio.CancelledError):
        await killed

    assert result_of(await desk.deliver(notificationId="one"))["success"]


async def test_without_redis_nothing_is_sent_and_no_attempt_is_spent(own_redis: RedisServer) -> None:
    async with ScriptedSmtp() as server, desk_at(own_redis.url, server, patience=0.5) as desk:
        own_redis.stop()
        outcome = await desk.deliver()

        assert isinstance(outcome, Defer)
        assert outcome.code == "STATE_UNAVAILABLE"
        assert server.conversations == []


async def test_an_acceptance_is_recorded_when_redis_comes_back(own_redis: RedisServer) -> None:
    async with ScriptedSmtp() as server, desk_at(own_redis.url, server, patience=0.5) as desk:
        answer = asyncio.Event()
        server.will("MESSAGE", After(answer, "250 2.0.0 kept"))
        sending = asyncio.create_task(desk.deliver(notificationId="once"))
        await server.reached("MESSAGE")
        await asyncio.to_thread(own_redis.stop)
        answer.set()
        await asyncio.wait({sending}, timeout=1)
        assert not sending.done()
        await asyncio.to_thread(own_redis.start)

        assert result_of(await sending)["success"]
        assert result_of(await desk.deliver(notificationId="once", job_id="another"))["success"]
        assert len(server.accepted) == 1
