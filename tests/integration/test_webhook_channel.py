"""What a receiver of webhooks gets, and what becomes of its endpoint."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from standardwebhooks import Webhook, WebhookVerificationError
from structlog.testing import capture_logs

from notifications_worker.channel import Circuit, NotAccepted
from notifications_worker.channels import webhook_endpoints
from notifications_worker.channels.webhook import WebhookChannel
from notifications_worker.channels.webhook_endpoints import RegisteredEndpoints, UrlsOnly, header_problem
from notifications_worker.channels.webhook_order import NoOrder
from notifications_worker.channels.webhook_signature import new_secret, read_key
from notifications_worker.notification import Recipient
from notifications_worker.store import EndpointStore
from scripted_http import CLOSE, DRIP_HEAD, HANG, ScriptedHttp, answer
from webhook_desk import FALLBACK, SECRET, Loopback, WebhookDesk, job, webhook_desk
from worker_runtime.egress import egress
from worker_runtime.outcome import DeadLetter, PermanentError, Retry
from worker_runtime.postgres import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from scripted_http import Seen

SIGNED = ("webhook-id", "webhook-timestamp", "webhook-signature")


@pytest_asyncio.fixture
async def desk(database_url: str) -> AsyncIterator[WebhookDesk]:
    async with webhook_desk(database_url) as made:
        yield made


def verified_by(seen: Seen, secret: str) -> bool:
    try:
        Webhook(secret).verify(seen.body, {name: seen.headers[name] for name in SIGNED}, json_parse=False)
    except WebhookVerificationError:
        return False
    return True


async def test_the_receiver_verifies_exactly_the_bytes_of_the_job(desk: WebhookDesk) -> None:
    endpoint = await desk.endpoint()
    body = '{"b":1,  "a":"é"}\r\n'
    accepted = await desk.send(
        notificationId="n-1",
        recipient={"id": endpoint},
        content={"body": body},
        metadata={"contentType": "application/cloudevents+json; charset=utf-8"},
    )

    [seen] = desk.server.requests
    assert seen.body == body.encode()
    assert seen.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert seen.headers["webhook-id"] == accepted.provider_message_id == "n-1"
    assert abs(int(seen.headers["webhook-timestamp"]) - time.time()) < 60
    assert verified_by(seen, SECRET)
    assert not verified_by(seen, FALLBACK)
    assert accepted.reply is not None
    assert (accepted.reply.status, accepted.reply.text, accepted.reply.remote) == (200, "ok", "127.0.0.1")
    assert accepted.reply.signed_by == (read_key(SECRET).id,)


async def test_each_attempt_has_the_same_id_and_a_time_of_its_own(database_url: str) -> None:
    now = [1_767_225_600.0]
    async with ScriptedHttp() as server, egress(Loopback()) as client:
        channel = WebhookChannel(UrlsOnly((read_key(SECRET),)), NoOrder(), client, 20, lambda: now[0])
        one = job(recipient={"webhookUrl": server.url})
        server.will(answer(500))
        for _ in range(2):
            message = await channel.compose(one)
            [route] = channel.routes(message)
            try:
                await route.send(message)
            except NotAccepted:
                now[0] += 30

    first, second = server.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == one.payload.notification_id
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 30
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert first.body == second.body


async def test_a_rotated_secret_signs_beside_the_old_one_until_the_overlap_ends(desk: WebhookDesk) -> None:
    new = new_secret()
    endpoint = await desk.endpoint(secret=new, previous_secret=SECRET)
    await desk.change(endpoint, "previous_secret_until = now() + interval '1 hour'")
    await desk.send(recipient={"id": endpoint})
    await desk.change(endpoint, "previous_secret_until = now() - interval '1 second'")
    await desk.send(recipient={"id": endpoint})

    during, after = desk.server.requests
    assert (verified_by(during, new), verified_by(during, SECRET)) == (True, True)
    assert (verified_by(after, new), verified_by(after, SECRET)) == (True, False)


async def test_what_has_no_secret_of_its_own_is_signed_with_the_operators(desk: WebhookDesk) -> None:
    endpoint = await desk.endpoint(secret=None)
    await desk.send(recipient={"id": endpoint})
    await desk.send(recipient={"webhookUrl": desk.server.url + "/other"})
    await desk.send(recipient={"id": "user-42", "webhookUrl": desk.server.url + "/other"})

    assert [verified_by(seen, FALLBACK) for seen in desk.server.requests] == [True, True, True]


async def test_a_bare_url_that_is_registered_is_its_endpoint(desk: WebhookDesk) -> None:
    await desk.endpoint()
    await desk.send(recipient={"webhookUrl": desk.server.url})

    assert verified_by(desk.server.requests[0], SECRET)


async def test_an_endpoint_of_another_tenant_is_nobodys(desk: WebhookDesk) -> None:
    endpoint = await desk.endpoint(tenant_id="t-2")
    with pytest.raises(PermanentError, match="ENDPOINT_UNKNOWN"):
        await desk.send(recipient={"id": endpoint})
    assert not desk.server.requests


async def test_without_any_secret_a_webhook_goes_unsigned() -> None:
    async with ScriptedHttp() as server, egress(Loopback()) as client:
        channel = WebhookChannel(UrlsOnly(()), NoOrder(), client, 20)
        message = await channel.compose(job(recipient={"webhookUrl": server.url}))
        [route] = channel.routes(message)
        await route.send(message)

    assert "webhook-signature" not in server.requests[0].headers
    assert "webhook-id" in server.requests[0].headers


async def test_custom_headers_are_sent_and_those_of_the_protocol_are_not_theirs(desk: WebhookDesk) -> None:
    headers = (
        '{"X-Api-Key": "k", "Webhook-Id": "forged", "Content-Type": "text/plain", "X-Bad": "a\\nb", "Host": "evil"}'
    )
    endpoint = await desk.endpoint(headers=headers)
    with capture_logs() as lines:
        await desk.send(notificationId="n-1", recipient={"id": endpoint})

    sent = desk.server.requests[0].headers
    assert (sent["x-api-key"], sent["webhook-id"], sent["content-type"]) == ("k", "n-1", "application/json")
    assert "x-bad" not in sent
    assert sent["host"] == f"127.0.0.1:{desk.server.port}"
    assert len([line for line in lines if line["event"] == "webhook_header_left_out"]) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [("webhook-signature", "x"), ("Cookie", "x"), ("Transfer-Encoding", "x"), ("X y", "x"), ("", "x"), ("X", "é")],
)
def test_a_header_that_is_not_for_an_endpoint_is_refused(name: str, value: str) -> None:
    assert header_problem(name, value)
    assert header_problem("X-Api-Key", "k") is None
    assert header_problem("Authorization", "Bearer t") is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"recipient": {}}, "INVALID_PAYLOAD: recipient.webhookUrl is missing"),
        ({"recipient": {"id": "nobody"}}, "ENDPOINT_UNKNOWN"),
        ({"content": {}}, "INVALID_PAYLOAD: content.body is missing"),
        ({"metadata": {"contentType": "a\r\nb"}}, "INVALID_PAYLOAD: metadata.contentType"),
        ({"metadata": {"contentType": 7}}, "INVALID_PAYLOAD: metadata.contentType"),
    ],
)
async def test_what_can_never_be_sent_says_what_is_wrong(desk: WebhookDesk, changes: Any, code: str) -> None:
    with pytest.raises(PermanentError, match=code):
        await desk.send(**({"recipient": {"webhookUrl": desk.server.url}} | changes))


async def test_a_receivers_refusal_is_kept_with_its_words_and_without_its_persons(desk: WebhookDesk) -> None:
    endpoint = await desk.endpoint()
    desk.server.will(answer(422, b"no such user: ada@example.com"))
    refused = await desk.refused(recipient={"id": endpoint})

    assert refused.verdict.outcome == Retry("WEBHOOK_REJECTED", "the receiver answered 422")
    assert refused.reply is not None
    assert (refused.reply.status, refused.reply.text) == (422, "no such user: ***@example.com")
    assert refused.text == refused.reply.text


@pytest.mark.parametrize(
    ("step", "code", "circuit", "unsent"),
    [
        (answer(302, b"", Location="http://127.0.0.1:1/"), "WEBHOOK_REDIRECTED", Circuit.WORKS, True),
        (answer(404), "WEBHOOK_REJECTED", Circuit.WORKS, True),
        (answer(429, Retry_After="120"), "WEBHOOK_THROTTLED", Circuit.WORKS, True),
        (answer(500), "WEBHOOK_REJECTED", Circuit.FAILED, True),
        (answer(503, Retry_After="7"), "WEBHOOK_REJECTED", Circuit.FAILED, True),
        (CLOSE, "WEBHOOK_UNANSWERED", Circuit.FAILED, False),
    ],
)
async def test_what_the_receiver_does_decides(
    desk: WebhookDesk, step: Any, code: str, circuit: Circuit, *, unsent: bool
) -> None:
    desk.server.will(step)
    verdict = (await desk.refused(recipient={"webhookUrl": desk.server.url})).verdict

    assert isinstance(verdict.outcome, Retry)
    assert (verdict.outcome.code, verdict.circuit, verdict.unsent) == (code, circuit, unsent)
    if b"Retry-After: 120" in (step if isinstance(step, bytes) else b""):
        assert verdict.outcome.floor == 120


@pytest.mark.parametrize("stage", [HANG, DRIP_HEAD])
async def test_a_receiver_that_hangs_is_given_up_in_time(database_url: str, stage: Any) -> None:
    async with webhook_desk(database_url, seconds=0.3) as desk:
        desk.server.always(stage)
        verdict = (await desk.refused(recipient={"webhookUrl": desk.server.url})).verdict

    assert isinstance(verdict.outcome, Retry)
    assert (verdict.outcome.code, verdict.outcome.floor, verdict.unsent) == ("WEBHOOK_UNANSWERED", 60, False)


async def test_an_address_that_policy_forbids_is_a_dead_letter(desk: WebhookDesk) -> None:
    endpoint = await desk.endpoint(url="http://169.254.169.254/latest/meta-data")
    verdict = (await desk.refused(recipient={"id": endpoint})).verdict

    assert isinstance(verdict.outcome, DeadLetter)
    assert verdict.outcome.code == "EGRESS_REFUSED"
    assert "meta-data" not in verdict.outcome.reason


async def test_an_endpoint_may_declare_answers_to_be_final(desk: WebhookDesk) -> None:
    endpoint = await desk.endpoint(permanent_statuses=[400, 422])
    desk.server.will(answer(422), answer(404))
    final, passing = [(await desk.refused(recipient={"id": endpoint})).verdict.outcome for _ in range(2)]

    assert isinstance(final, DeadLetter)
    assert isinstance(passing, Retry)
    assert (await desk.row(endpoint))["active"]


async def test_410_disables_the_endpoint_and_its_tenant_hears_of_it_once(desk: WebhookDesk) -> None:
    endpoint = await desk.endpoint()
    desk.server.always(answer(410))
    first, second = await asyncio.gather(*(desk.refused(recipient={"id": endpoint}) for _ in range(2)))

    for refused in (first, second):
        assert isinstance(refused.verdict.outcome, DeadLetter)
        assert refused.verdict.outcome.code == "ENDPOINT_GONE"
        assert refused.verdict.suppress is None
    row = await desk.row(endpoint)
    assert (row["active"], row["disabled_because"]) == (False, "GONE")
    [event] = await desk.events()
    assert (event["event_type"], event["tenant_id"], event["status"]) == ("webhook.endpoint_disabled", "t-1", "pending")
    assert (event["aggregate_type"], event["aggregate_id"]) == ("webhook_endpoint", endpoint)
    assert event["payload"] == {
        "endpointId": endpoint,
        "tenantId": "t-1",
        "host": "127.0.0.1",
        "reason": "GONE",
        "failingSince": event["payload"]["failingSince"],
        "disabledAt": event["payload"]["disabledAt"],
    }
    with pytest.raises(PermanentError, match=f"ENDPOINT_DISABLED: .*GONE.*endpoints enable {endpoint}"):
        await desk.send(recipient={"id": endpoint})
    assert len(desk.server.requests) == 2


async def test_410_from_a_bare_url_keeps_everything_from_it(desk: WebhookDesk) -> None:
    desk.server.will(answer(410))
    refused = await desk.refused(recipient={"webhookUrl": desk.server.url})

    assert refused.verdict.suppress == "ENDPOINT_GONE"
    assert not await desk.events()


async def test_nothing_but_failures_for_five_days_disables_and_one_success_between_does_not(desk: WebhookDesk) -> None:
    endpoint = await desk.endpoint()
    desk.server.always(answer(500))
    await desk.refused(recipient={"id": endpoint})
    assert (await desk.row(endpoint))["failing_since"] is not None

    await desk.change(endpoint, "failing_since = now() - interval '119 hours'")
    await desk.refused(recipient={"id": endpoint})
    assert (await desk.row(endpoint))["active"]

    desk.server.will(answer(200))
    await desk.send(recipient={"id": endpoint})
    assert (await desk.row(endpoint))["failing_since"] is None
    assert not await desk.events()

    await desk.refused(recipient={"id": endpoint})
    await desk.change(endpoint, "failing_since = now() - interval '121 hours'")
    await desk.refused(recipient={"id": endpoint})
    row = await desk.row(endpoint)
    assert (row["active"], row["disabled_because"]) == (False, "ONLY_FAILURES")
    assert [event["payload"]["reason"] for event in await desk.events()] == ["ONLY_FAILURES"]


async def test_every_endpoint_has_a_circuit_and_a_limit_of_its_own(desk: WebhookDesk) -> None:
    endpoint = await desk.endpoint(rate_per_second=5.0)
    routes = [
        desk.channel.routes(await desk.channel.compose(job(recipient=recipient)))[0]
        for recipient in (
            {"id": endpoint},
            {"webhookUrl": "https://a.example/x?token=hunter2"},
            {"webhookUrl": "https://b.example/"},
        )
    ]

    assert [(route.shared, route.per_second) for route in routes] == [(False, 5.0), (False, None), (False, None)]
    assert routes[0].circuit == f"webhook:{endpoint}"
    assert len({route.circuit for route in routes}) == 3
    assert not [route for route in routes if "hunter2" in route.circuit or "example" in route.circuit]


async def test_an_endpoint_is_remembered_for_a_moment_and_a_disabled_one_is_not(database_url: str) -> None:
    async with webhook_desk(database_url, remembered=3600.0) as desk:
        endpoint = await desk.endpoint()
        await asyncio.gather(*(desk.send(recipient={"id": endpoint}) for _ in range(20)))
        await desk.change(endpoint, f"secret = '{new_secret()}'")
        await desk.send(recipient={"id": endpoint})
        assert all(verified_by(seen, SECRET) for seen in desk.server.requests)

        desk.server.will(answer(410))
        await desk.refused(recipient={"id": endpoint})
        with pytest.raises(PermanentError, match="ENDPOINT_DISABLED"):
            await desk.send(recipient={"id": endpoint})
    assert len(desk.server.requests) == 22


async def test_what_is_remembered_of_endpoints_is_bounded(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_endpoints, "MOST_REMEMBERED", 3)
    now = [0.0]
    async with Database(database_url) as database:
        book = RegisteredEndpoints(EndpointStore(database), (), 1.0, monotonic=lambda: now[0])
        for number in range(10):
            await book.find("t-1", Recipient(webhook_url=f"https://{number}.example/"))
        assert len(book._remembered) == 3
        now[0] = 2.0
        found = await book.find("t-1", Recipient(webhook_url="https://9.example/"))
        assert found is not None
        assert book._remembered["t-1", None, "https://9.example/"] == (3.0, found)


def test_logs_show_the_host_and_no_more() -> None:
    shown = WebhookChannel.shown
    channel: Any = None
    assert shown(channel, "https://ada:pw@hooks.example.com:8443/T0/secret?token=x") == "https://hooks.example.com:8443"
    assert shown(channel, "8f14e45f-ceea-467f-a8f1-2b0b0c6f0c2e") == "8f14e45f-ceea-467f-a8f1-2b0b0c6f0c2e"
    assert WebhookChannel.name == "WEBHOOK"
