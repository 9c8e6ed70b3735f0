"""A message over several routes, with a channel whose providers do what the test says."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import pytest_asyncio

from notifications_worker.channel import Accepted, Circuit, NotAccepted, Route, Verdict
from notifications_worker.delivery import Delivery, Desk
from notifications_worker.ledger import RedisLedger
from notifications_worker.limits import Limits, TenantLimit
from notifications_worker.notification import Notification
from notifications_worker.preferences import SEND, Drop, Preference, Preferences, Wait
from notifications_worker.suppression import RedisSuppressions, bulk
from worker_runtime.breaker import Breakers
from worker_runtime.clock import SystemClock
from worker_runtime.delivery_state import DeliveryRecords, RateLimits, SuppressedAddresses
from worker_runtime.metrics import Metrics
from worker_runtime.outcome import DeadLetter, Defer, Done, Hold, Outcome, Retry
from worker_runtime.redis.connection import RedisConnection
from worker_runtime.testing import job_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker_runtime.job import Job

NUMBER = "+15005550006"
OUT = NotAccepted(Verdict(Defer("PROVIDER_UNAVAILABLE", "it is out", 1.0), Circuit.FAILED))
REFUSED = NotAccepted(Verdict(DeadLetter("PROVIDER_REJECTED", "no such number"), Circuit.WORKS, suppress="NO_NUMBER"))
NOT_TOLD = NotAccepted(Verdict(Retry("DELIVERY_UNKNOWN", "no answer"), Circuit.FAILED, unsent=False))
BARRED = NotAccepted(Verdict(Defer("PROVIDER_MISCONFIGURED", "wrong key", 1.0), Circuit.MISCONFIGURED))


@dataclass
class TwoRoutes:
    """An SMS channel; `ends` has what each provider does next, and then it accepts."""

    name: ClassVar[str] = "SMS"
    keeps_payload: ClassVar[bool] = False
    providers: tuple[str, ...] = ("one", "two")
    circuits: tuple[str, ...] = ("one", "two")
    shared: bool = True
    per_second: float | None = None
    pretends: bool = False
    repeatable: bool = False
    ends: dict[str, list[NotAccepted]] = field(default_factory=lambda: {"one": [], "two": []})
    asked: list[str] = field(default_factory=list)
    known: dict[str, Accepted] = field(default_factory=dict)
    looked_up_since: list[float] = field(default_factory=list)

    def recipient(self, notification: Notification) -> str:
        return notification.recipient.phone or ""

    def shown(self, recipient: str) -> str:
        return recipient[-2:]

    async def compose(self, job: Job[Notification]) -> str:
        return job.payload.notification_id

    def routes(self, message: str) -> Sequence[Route[str]]:  # noqa: ARG002
        return [self._route(provider) for provider in self.providers]

    def _route(self, provider: str) -> Route[str]:
        async def send(message: str) -> Accepted:
            self.asked.append(provider)
            if self.ends[provider]:
                raise self.ends[provider].pop(0)
            return Accepted(f"{provider}-{message}", pretended=self.pretends)

        async def look_up(message: str, since: float) -> Accepted | None:
            self.looked_up_since.append(since)
            return self.known.get(message)

        return Route(provider, provider, send, self.shared, self.per_second, self.repeatable, look_up)


@dataclass
class Stage:
    channel: TwoRoutes
    redis: RedisConnection
    breakers: Breakers
    suppressions: RedisSuppressions
    preference: Preference = SEND
    tenant: TenantLimit | None = None

    async def deliver(self, notification_id: str = "n-1", **changes: Any) -> Outcome:
        payload = {
            "notificationId": notification_id,
            "tenantId": "t-1",
            "channel": "SMS",
            "recipient": {"phone": NUMBER},
            "content": {"body": "Hello"},
        }
        job = job_for(Notification.model_validate(payload | changes), job_id=notification_id, queue="sms")
        return await self.delivery()(job)

    def delivery(self) -> Delivery:
        async def hook(_: Notification) -> Preference:
            return self.preference

        return Delivery(
            Desk(
                self.channel,
                lambda route: self.breakers.of(route.circuit, 1.0),
                RedisLedger(DeliveryRecords(self.redis, "intelliflow")),
                self.suppressions,
                Limits(RateLimits(self.redis, "intelliflow"), "SMS", self.tenant),
                Preferences(SystemClock(), hook=hook),
                Metrics("test").delivery,
                SystemClock(),
                Random(1),
            )
        )


@pytest_asyncio.fixture
async def stage(redis_url: str) -> AsyncIterator[Stage]:
    async with connected(redis_url) as redis:
        breakers = Breakers(redis, "intelliflow", Metrics("test").dependencies, threshold=2, reset_ms=60_000)
        yield Stage(TwoRoutes(), redis, breakers, RedisSuppressions(SuppressedAddresses(redis, "intelliflow")))


@asynccontextmanager
async def connected(redis_url: str) -> AsyncIterator[RedisConnection]:
    redis = RedisConnection(redis_url, client_name="test", timeout_seconds=5)
    await redis.open()
    yield redis
    await redis.close()


def accepted_by(outcome: Outcome) -> str:
    assert isinstance(outcome, Done)
    assert outcome.result["success"]
    return str(outcome.result["providerMessageId"])


def code(outcome: Outcome) -> str:
    assert isinstance(outcome, (Retry, Defer, Hold, DeadLetter))
    return outcome.code


@pytest.mark.parametrize("end", [OUT, BARRED])
async def test_another_provider_sends_what_one_surely_has_not(stage: Stage, end: NotAccepted) -> None:
    stage.channel.ends["one"] = [end]

    assert accepted_by(await stage.deliver()) == "two-n-1"
    assert accepted_by(await stage.deliver()) == "two-n-1"
    assert stage.channel.asked == ["one", "two"]


async def test_what_one_may_have_sent_no_other_sends(stage: Stage) -> None:
    stage.channel.ends["one"] = [NOT_TOLD]

    assert code(await stage.deliver()) == "DELIVERY_UNKNOWN"
    assert stage.channel.asked == ["one"]


async def test_what_one_refuses_for_the_recipient_no_other_is_asked(stage: Stage) -> None:
    stage.channel.ends["one"] = [REFUSED]

    assert code(await stage.deliver()) == "PROVIDER_REJECTED"
    assert stage.channel.asked == ["one"]


async def test_an_open_circuit_is_passed_by(stage: Stage) -> None:
    stage.channel.ends["one"] = [OUT, OUT]
    await stage.deliver("a")
    await stage.deliver("b")
    stage.channel.asked.clear()

    assert accepted_by(await stage.deliver("c")) == "two-c"
    assert stage.channel.asked == ["two"]


@pytest.mark.parametrize(("shared", "end"), [(True, Hold), (False, Defer)])
async def test_with_all_circuits_open_the_queue_or_the_job_waits(stage: Stage, shared: bool, end: type) -> None:  # noqa: FBT001
    stage.channel.shared = shared
    stage.channel.ends = {"one": [BARRED], "two": [BARRED]}
    first = await stage.deliver("a")
    second = await stage.deliver("b")

    assert code(first) == "PROVIDER_MISCONFIGURED"
    assert isinstance(first, Defer)
    assert first.seconds > 50
    assert type(second) is end
    assert code(second) == "CIRCUIT_OPEN"
    assert 50 < second.seconds <= 60  # type: ignore[union-attr]


async def test_what_may_have_been_sent_is_looked_up_first(stage: Stage) -> None:
    stage.channel.ends["one"] = [NOT_TOLD]
    before = time.time()
    await stage.deliver()
    stage.channel.known["n-1"] = Accepted("found")

    assert accepted_by(await stage.deliver()) == "found"
    assert stage.channel.asked == ["one"]
    (since,) = stage.channel.looked_up_since
    assert before - 1 < since < time.time()


async def test_what_the_provider_does_not_know_is_sent_again(stage: Stage) -> None:
    stage.channel.ends["one"] = [NOT_TOLD]
    await stage.deliver()

    assert accepted_by(await stage.deliver()) == "one-n-1"
    assert len(stage.channel.looked_up_since) == 1


async def test_bulk_that_may_have_been_sent_is_not_sent_again(stage: Stage) -> None:
    stage.channel.ends["one"] = [NOT_TOLD]
    bulk: dict[str, Any] = {"metadata": {"category": "marketing"}}
    await stage.deliver(**bulk)
    again = await stage.deliver(**bulk)

    assert isinstance(again, DeadLetter)
    assert again.code == "DELIVERY_UNKNOWN"
    assert stage.channel.asked == ["one"]


async def test_bulk_whose_receiver_knows_a_repeat_is_sent_again(stage: Stage) -> None:
    stage.channel.ends["one"] = [NOT_TOLD]
    stage.channel.repeatable = True
    bulk: dict[str, Any] = {"metadata": {"category": "marketing"}}
    await stage.deliver(**bulk)

    assert accepted_by(await stage.deliver(**bulk)) == "one-n-1"


async def test_an_address_that_is_none_is_not_tried_again(stage: Stage) -> None:
    stage.channel.ends["one"] = [REFUSED]
    await stage.deliver("a")
    second = await stage.deliver("b")

    assert isinstance(second, DeadLetter)
    assert (second.code, second.reason) == ("SUPPRESSED", "nothing is sent to this recipient: NO_NUMBER")
    assert stage.channel.asked == ["one"]
    assert accepted_by(await stage.deliver("c", tenantId="t-2")) == "one-c"
    assert await stage.suppressions.remove("t-1", "SMS", NUMBER)
    assert accepted_by(await stage.deliver("d")) == "one-d"


async def test_who_wants_no_bulk_gets_the_rest(stage: Stage) -> None:
    await stage.suppressions.add("t-1", bulk("SMS"), NUMBER, "UNSUBSCRIBED")
    refused = await stage.deliver("a", metadata={"category": "marketing"})

    assert isinstance(refused, DeadLetter)
    assert refused.reason == "nothing is sent to this recipient: UNSUBSCRIBED"
    assert accepted_by(await stage.deliver("b")) == "one-b"


async def test_a_tenants_limit_puts_off_only_its_own(stage: Stage) -> None:
    stage.tenant = TenantLimit(2, 10_000)
    ends = await asyncio.gather(*(stage.deliver(f"n-{number}") for number in range(5)))
    put_off = [end for end in ends if isinstance(end, Defer)]

    assert len(put_off) == 3
    assert {end.code for end in put_off} == {"RATE_LIMITED"}
    assert len({round(end.seconds, 2) for end in put_off}) == 3
    assert accepted_by(await stage.deliver("other", tenantId="t-2")) == "one-other"


async def test_an_endpoints_limit_may_be_less_than_one_a_second(stage: Stage) -> None:
    stage.channel.per_second = 0.1
    first, second = await stage.deliver("a"), await stage.deliver("b")

    assert isinstance(first, Done)
    assert isinstance(second, Defer)
    assert 9 < second.seconds <= 10


async def test_a_limit_says_nothing_about_the_circuit(stage: Stage) -> None:
    stage.channel.ends["one"] = [OUT]
    stage.channel.providers = ("one",)
    stage.tenant = TenantLimit(1, 10_000)
    await stage.deliver("a")
    for _ in range(3):
        assert code(await stage.deliver("b")) == "RATE_LIMITED"

    assert stage.breakers.of("one", 1.0).reading.failures == 1


async def test_the_hook_may_drop_and_put_off(stage: Stage) -> None:
    stage.preference = Drop("unsubscribed")
    dropped = await stage.deliver("a")
    stage.preference = Wait(datetime.now(UTC) + timedelta(hours=1))
    put_off = await stage.deliver("b")

    assert isinstance(dropped, Done)
    assert (dropped.result["success"], dropped.result["error"]) == (False, "unwanted: unsubscribed")
    assert isinstance(put_off, Defer)
    assert (put_off.code, put_off.planned) == ("QUIET_HOURS", True)
    assert 3500 < put_off.seconds <= 3600
    assert stage.channel.asked == []


async def test_what_a_stand_in_took_is_not_called_sent(stage: Stage) -> None:
    stage.channel.pretends = True
    outcome = await stage.deliver()

    assert isinstance(outcome, Done)
    assert (outcome.result["success"], outcome.result["error"]) == (False, "nothing was sent: the provider is one")
    stage.channel.pretends = False
    assert accepted_by(await stage.deliver()) == "one-n-1"
