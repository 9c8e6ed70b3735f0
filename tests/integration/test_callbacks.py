"""What providers call: real HTTP, signed as they sign, forged as others would."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
import pytest
import pytest_asyncio
import structlog
from twilio.request_validator import RequestValidator

from embedded_stack.sms_server import SmsServer, signed
from notifications_worker.callbacks.about import About
from notifications_worker.callbacks.effects import DeliveryState, LoggedUpdates, StatusReport
from notifications_worker.callbacks.messagebird import SIGNATURE_HEADER
from notifications_worker.callbacks.opt_outs import EVERY_TENANT, SharedSuppressions
from notifications_worker.callbacks.routes import CallbackRoute, callback_routes
from notifications_worker.callbacks.server import CallbackPortUnavailable, callback_server
from notifications_worker.settings import NotificationsSettings
from notifications_worker.unsubscribe_links import Subscription
from worker_runtime.loops import StopSignal
from worker_runtime.settings import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from notifications_worker.callbacks.server import CallbackServer

PUBLIC = "https://hooks.example.com/sms"
TOKEN, SHARED_KEY, SIGNING_KEY = "token-of-the-account", "shared-" * 6, "signing-" * 5
PERSON, OURS = "+15005550010", "+15005550006"
ABOUT = About("t-1", "n-1")
STATUS = f"/callbacks/twilio/status?about={ABOUT.encoded()}"
INBOUND = "/callbacks/twilio/inbound"


class RememberedUpdates:
    """Deliveries in memory: what the worker's own record does with a report."""

    def __init__(self) -> None:
        self.reports: list[StatusReport] = []
        self.states: dict[str, DeliveryState] = {}
        self.failure: Exception | None = None

    async def update(self, report: StatusReport) -> None:
        if self.failure:
            raise self.failure
        self.reports.append(report)
        if report.state.supersedes(self.states.get(report.provider_message_id)):
            self.states[report.provider_message_id] = report.state


class RememberedSuppressions:
    """Suppressions in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str, str], str] = {}

    async def reason(self, tenant: str, channel: str, address: str) -> str | None:
        return self.kept.get((tenant, channel, address))

    async def add(self, tenant: str, channel: str, address: str, reason: str) -> None:
        self.kept.setdefault((tenant, channel, address), reason)

    async def remove(self, tenant: str, channel: str, address: str) -> bool:
        return self.kept.pop((tenant, channel, address), None) is not None


@dataclass
class Doorstep:
    """The server, what it changed, and a company that calls it through a proxy at PUBLIC."""

    server: CallbackServer
    http: aiohttp.ClientSession
    updates: RememberedUpdates = field(default_factory=RememberedUpdates)
    suppressions: RememberedSuppressions = field(default_factory=RememberedSuppressions)

    async def called(self, path: str, fields: dict[str, str], *, secret: str = TOKEN, **changes: Any) -> int:
        headers = signed(PUBLIC + path, fields, secret, shared=secret != TOKEN) | changes.pop("headers", {})
        return await self.posted(path, fields, headers)

    async def posted(self, path: str, fields: Any, headers: dict[str, str]) -> int:
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with self.http.post(url, data=fields, headers=headers) as reply:
            return reply.status

    async def asked(self, path: str, headers: dict[str, str]) -> int:
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with self.http.get(url, headers=headers) as reply:
            return reply.status


@pytest_asyncio.fixture
async def doorstep(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Doorstep]:
    for name, value in {
        "PUBLIC_BASE_URL": PUBLIC + "/",
        "CALLBACK_PORT": "1",
        "TWILIO_AUTH_TOKEN": TOKEN,
        "TWILIO_WEBHOOK_KEY": SHARED_KEY,
        "MESSAGEBIRD_SIGNING_KEY": SIGNING_KEY,
    }.items():
        monkeypatch.setenv(name, value)
    updates, suppressions = RememberedUpdates(), RememberedSuppressions()
    routes = callback_routes(load(NotificationsSettings), updates, suppressions)
    async with callback_server(routes, host="127.0.0.1", port=0) as server, aiohttp.ClientSession() as http:
        yield Doorstep(server, http, updates, suppressions)


def report(status: str, **more: str) -> dict[str, str]:
    return {"MessageSid": "SM1", "MessageStatus": status, "To": PERSON, "From": OURS} | more


def answer(body: str, **more: str) -> dict[str, str]:
    return {"MessageSid": "SM2", "From": PERSON, "To": OURS, "Body": body} | more


def test_the_published_vectors_of_twilios_signature() -> None:
    validator = RequestValidator("12345")
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    fields = {
        "CallSid": "CA1234567890ABCDE",
        "Digits": "1234",
        "From": "+14158675309",
        "To": "+18005551212",
        "Caller": "+14158675309",
    }

    assert validator.compute_signature(url, fields) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="
    assert signed(url, fields, "12345")["X-Twilio-Signature"] == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


async def test_a_report_reaches_the_delivery_it_is_about(doorstep: Doorstep) -> None:
    assert await doorstep.called(STATUS, report("undelivered", ErrorCode="30005")) == 204

    assert doorstep.updates.reports == [StatusReport("twilio", "SM1", DeliveryState.UNDELIVERED, "30005", ABOUT)]
    assert not doorstep.suppressions.kept


async def test_reports_twice_and_out_of_order_are_harmless(doorstep: Doorstep) -> None:
    for status in ("sent", "delivered", "queued", "delivered", "sending", "sent"):
        assert await doorstep.called(STATUS, report(status)) == 204

    assert len(doorstep.updates.reports) == 6
    assert doorstep.updates.states == {"SM1": DeliveryState.DELIVERED}


async def test_a_shared_key_signs_too_and_each_secret_only_for_itself(doorstep: Doorstep) -> None:
    assert await doorstep.called(STATUS, report("sent"), secret=SHARED_KEY) == 204
    pretending = {"X-Twilio-Webhooks-Signature-Settings": "key=k1,algorithm=HMAC_SHA256"}
    assert await doorstep.called(STATUS, report("delivered"), headers=pretending) == 403
    unknown = {"X-Twilio-Webhooks-Signature-Settings": "key=k1,algorithm=ROT13"}
    assert await doorstep.called(STATUS, report("delivered"), secret=SHARED_KEY, headers=unknown) == 403

    assert doorstep.updates.states == {"SM1": DeliveryState.SENT}


async def test_what_is_forged_changes_nothing(doorstep: Doorstep) -> None:
    honest = signed(PUBLIC + STATUS, report("sent"), TOKEN)
    foreign = f"/callbacks/twilio/status?about={About('t-2', 'n-1').encoded()}"
    attempts: list[tuple[str, dict[str, str], dict[str, str]]] = [
        (STATUS, report("sent"), {}),
        (STATUS, report("sent"), {"X-Twilio-Signature": ""}),
        (STATUS, report("sent"), {"X-Twilio-Signature": "é"}),
        (STATUS, report("delivered"), honest),
        (STATUS, report("sent", ErrorCode="21610"), honest),
        (foreign, report("sent"), honest),
        (STATUS + "&x=1", report("sent"), honest),
        (STATUS.partition("?")[0], report("sent"), honest),
        (INBOUND, report("sent"), honest),
        (STATUS, report("sent"), signed(PUBLIC + STATUS, report("sent"), "another token")),
        (STATUS, report("sent"), signed("https://evil.example.com" + STATUS, report("sent"), TOKEN)),
    ]
    with structlog.testing.capture_logs() as lines:
        answers = [await doorstep.posted(*attempt) for attempt in attempts]

    assert answers == [403] * len(attempts)
    assert not doorstep.updates.reports
    assert not doorstep.suppressions.kept
    assert [line["event"] for line in lines] == ["callback_refused"] * len(attempts)
    assert PERSON[1:] not in str(lines)
    assert await doorstep.posted(STATUS, report("sent"), honest) == 204


async def test_a_report_without_its_parts_changes_nothing(doorstep: Doorstep) -> None:
    assert await doorstep.called(STATUS, {"MessageStatus": "sent"}) == 400
    assert await doorstep.called(STATUS, report("teleported")) == 204
    assert not doorstep.updates.reports
    assert await doorstep.called("/callbacks/twilio/status?about=%00", report("sent")) == 204
    assert doorstep.updates.reports[0].about is None


async def test_stop_is_kept_for_all_who_share_the_number_and_start_lifts_it(doorstep: Doorstep) -> None:
    assert await doorstep.called(INBOUND, answer("Stop")) == 200
    assert await doorstep.called(INBOUND, answer("STOP")) == 200
    assert await doorstep.called(INBOUND, answer("thanks")) == 200
    assert doorstep.suppressions.kept == {(EVERY_TENANT, "SMS", PERSON): "OPTED_OUT"}
    shared = SharedSuppressions(doorstep.suppressions)
    assert await shared.reason("t-1", "SMS", PERSON) == "OPTED_OUT"
    assert await shared.reason("t-1", "EMAIL", PERSON) is None
    assert not await shared.remove("t-1", "SMS", PERSON)

    for _ in range(2):
        assert await doorstep.called(INBOUND, answer("START")) == 200
    assert await shared.reason("t-1", "SMS", PERSON) is None


async def test_start_lifts_nothing_but_a_stop(doorstep: Doorstep) -> None:
    await doorstep.suppressions.add(EVERY_TENANT, "SMS", PERSON, "BY_HAND")

    assert await doorstep.called(INBOUND, answer("START")) == 200

    assert doorstep.suppressions.kept == {(EVERY_TENANT, "SMS", PERSON): "BY_HAND"}


async def test_a_report_of_an_opt_out_is_one(doorstep: Doorstep) -> None:
    assert await doorstep.called(STATUS, report("failed", ErrorCode="21610")) == 204

    assert doorstep.suppressions.kept == {(EVERY_TENANT, "SMS", PERSON): "OPTED_OUT"}


async def test_what_a_provider_refused_for_one_tenant_start_lifts_for_all(doorstep: Doorstep) -> None:
    shared = SharedSuppressions(doorstep.suppressions)
    await shared.add("t-1", "SMS", PERSON, "OPTED_OUT")
    await shared.add("t-1", "SMS", OURS, "BY_HAND")
    assert await shared.reason("t-2", "SMS", PERSON) == "OPTED_OUT"
    assert await shared.reason("t-2", "SMS", OURS) is None

    assert await doorstep.called(INBOUND, answer("START")) == 200

    assert await shared.reason("t-1", "SMS", PERSON) is None
    assert await shared.remove("t-1", "SMS", OURS)


async def test_an_answer_from_what_is_no_number_suppresses_nobody(doorstep: Doorstep) -> None:
    assert await doorstep.called(INBOUND, answer("STOP", From="whatsapp:+15005550010")) == 200

    assert not doorstep.suppressions.kept


async def test_a_record_that_is_away_asks_the_provider_to_come_again(doorstep: Doorstep) -> None:
    doorstep.updates.failure = ConnectionError(f"no database for {PERSON}")
    with structlog.testing.capture_logs() as lines:
        assert await doorstep.called(STATUS, report("sent")) == 503

    assert [(line["event"], line["error"]) for line in lines] == [("callback_failed", "ConnectionError")]
    assert PERSON not in str(lines)


def jwt_for(url: str, *, key: str = SIGNING_KEY, body: bytes = b"", **changes: Any) -> dict[str, str]:
    claims = {
        "iss": "MessageBird",
        "nbf": int(time.time()) - 1,
        "exp": int(time.time()) + 60,
        "jti": "1",
        "url_hash": hashlib.sha256(url.encode()).hexdigest(),
        **({"payload_hash": hashlib.sha256(body).hexdigest()} if body else {}),
        **changes,
    }
    present = {name: value for name, value in claims.items() if value is not None}
    return {SIGNATURE_HEADER: jwt.encode(present, key, algorithm="HS256")}


BIRD = f"/callbacks/messagebird/status?about={ABOUT.encoded()}&id=mb1&status=delivered&recipient=15005550010"


async def test_a_signed_report_of_messagebirds_counts(doorstep: Doorstep) -> None:
    assert await doorstep.asked(BIRD, jwt_for(PUBLIC + BIRD)) == 200
    failed = BIRD.replace("delivered", "delivery_failed") + "&statusErrorCode=5"
    assert await doorstep.asked(failed, jwt_for(PUBLIC + failed)) == 200
    assert await doorstep.posted(BIRD, b"{}", jwt_for(PUBLIC + BIRD, body=b"{}")) == 200

    assert doorstep.updates.reports[1] == StatusReport("messagebird", "mb1", DeliveryState.UNDELIVERED, "5", ABOUT)
    assert doorstep.updates.states == {"mb1": DeliveryState.DELIVERED}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {SIGNATURE_HEADER: "a.b.c"},
        jwt_for(PUBLIC + BIRD, key="another key of at least 32 bytes ..."),
        jwt_for("https://evil.example.com" + BIRD),
        jwt_for(PUBLIC + BIRD + "&x=1"),
        jwt_for(PUBLIC + BIRD, iss="Somebody"),
        jwt_for(PUBLIC + BIRD, exp=1),
        jwt_for(PUBLIC + BIRD, nbf=9_999_999_999),
        jwt_for(PUBLIC + BIRD, url_hash=None),
        jwt_for(PUBLIC + BIRD, exp=None),
        jwt_for(PUBLIC + BIRD, body=b"a body that did not come"),
        {SIGNATURE_HEADER: jwt.encode({"iss": "MessageBird"}, "", algorithm="none")},
    ],
)
async def test_a_forged_report_of_messagebirds_changes_nothing(doorstep: Doorstep, headers: dict[str, str]) -> None:
    assert await doorstep.asked(BIRD, headers) == 403
    assert not doorstep.updates.reports


async def test_a_body_that_was_swapped_changes_nothing(doorstep: Doorstep) -> None:
    assert await doorstep.posted(BIRD, b"{...}", jwt_for(PUBLIC + BIRD, body=b"{}")) == 403
    assert await doorstep.posted(BIRD, b"{...}", jwt_for(PUBLIC + BIRD)) == 403
    assert not doorstep.updates.reports


async def test_the_local_company_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    updates = RememberedUpdates()
    with SmsServer() as company, socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
        reserved.close()
        base = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("PUBLIC_BASE_URL", base)
        monkeypatch.setenv("TWILIO_AUTH_TOKEN", company.auth_token)
        routes = callback_routes(load(NotificationsSettings), updates, RememberedSuppressions())
        async with callback_server(routes, host="127.0.0.1", port=port):
            assert await asyncio.to_thread(company.call_back, base + STATUS, report("sent")) == 204

    assert updates.states == {"SM1": DeliveryState.SENT}


@asynccontextmanager
async def serving(handle: Callable[[aiohttp.web.Request], Awaitable[aiohttp.web.Response]]) -> AsyncIterator[str]:
    route = CallbackRoute("POST", "/x", handle)
    async with callback_server([route], host="127.0.0.1", port=0, request_seconds=0.2, idle_seconds=0.2) as server:
        yield f"http://127.0.0.1:{server.port}/x"


async def read_all(request: aiohttp.web.Request) -> aiohttp.web.Response:
    return aiohttp.web.Response(text=str(len(await request.read())))


async def test_a_request_is_bounded_in_size_and_in_time() -> None:
    async def drip() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()

    async with serving(read_all) as url, aiohttp.ClientSession() as http:
        async with http.post(url, data=b"a" * 65_536) as reply:
            assert (reply.status, await reply.text()) == (200, "65536")
        async with http.post(url, data=b"a" * 65_537) as reply:
            assert reply.status == 413
        with structlog.testing.capture_logs() as lines:
            async with http.post(url, data=drip()) as reply:
                assert reply.status == 503
        assert [(line["event"], line["error"]) for line in lines] == [("callback_failed", "TimeoutError")]
        async with http.get(url) as reply:
            assert reply.status == 405
        async with http.get(url + "/../health") as reply:
            assert reply.status == 404


@pytest.mark.parametrize("opening", [b"", b"POST /x HTTP/1.1\r\nHost: x\r\n", b"POST /x HTTP/1.1\r\nHo"])
async def test_who_connects_and_asks_nothing_is_hung_up_on(opening: bytes) -> None:
    async with serving(read_all) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":")[2].partition("/")[0]))
        writer.write(opening)
        async with asyncio.timeout(10):
            await reader.read()
        writer.close()


async def test_a_taken_port_is_told_by_its_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CallbackPortUnavailable, match=f"CALLBACK_PORT={port} on CALLBACK_HOST="):
            async with callback_server([], host="127.0.0.1", port=port):
                pass


async def test_it_is_a_loop_that_beats_and_ends_when_told() -> None:
    async with callback_server([], host="127.0.0.1", port=0) as server:
        stop = StopSignal()
        running = asyncio.create_task(server.run(stop))
        stop.request(5)
        async with asyncio.timeout(5):
            await running
    assert server.heartbeat.age_seconds < 60


async def test_without_a_secret_there_is_no_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLIC_BASE_URL", PUBLIC)
    assert callback_routes(load(NotificationsSettings), RememberedUpdates(), RememberedSuppressions()) == []


async def test_without_a_database_the_log_says_what_became_of_a_message() -> None:
    with structlog.testing.capture_logs() as lines:
        await LoggedUpdates().update(StatusReport("twilio", "SM1", DeliveryState.DELIVERED, None, ABOUT))

    [line] = lines
    assert (line["event"], line["status"], line["notificationId"]) == ("delivery_status", "delivered", "n-1")


async def test_a_link_in_bulk_mail_unsubscribes_who_posts_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLIC_BASE_URL", PUBLIC)
    monkeypatch.setenv("UNSUBSCRIBE_SECRET", "s" * 32)
    settings, suppressions = load(NotificationsSettings), RememberedSuppressions()
    links = settings.unsubscribe_links()
    assert links is not None
    path = links.url(Subscription("t-1", "ada@example.com")).removeprefix(PUBLIC)
    routes = callback_routes(settings, RememberedUpdates(), suppressions)
    async with callback_server(routes, host="127.0.0.1", port=0) as server, aiohttp.ClientSession() as http:
        doorstep = Doorstep(server, http)
        assert await doorstep.asked(path, {}) == 200
        assert not suppressions.kept
        assert await doorstep.posted(path, {"List-Unsubscribe": "One-Click"}, {}) == 200
        assert await doorstep.posted(path + "x", {"List-Unsubscribe": "One-Click"}, {}) == 404

    assert suppressions.kept == {("t-1", "EMAIL:BULK", "ada@example.com"): "UNSUBSCRIBED"}
