"""What leaves a worker by HTTP, to receivers on loopback that behave as badly as receivers do."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from far_hosts import Names, tls_server, trusting
from scripted_http import (
    ANSWER_AND_CLOSE,
    CLOSE,
    DRIP,
    DRIP_HEAD,
    ENDLESS,
    GARBLE,
    HANG,
    HANG_IN_BODY,
    Action,
    ScriptedHttp,
    answer,
)
from worker_runtime.egress import (
    KEPT_BYTES,
    EgressClient,
    EgressRefused,
    EgressReply,
    NoAnswer,
    NotReached,
    egress,
    trusted_egress,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Long enough for a loaded machine to answer, and short beside the limit of a test.
PATIENT_SECONDS = 20.0
IMPATIENT_SECONDS = 0.4


@dataclass(frozen=True)
class Settings:
    egress_allowed_cidrs: tuple[str, ...] = ()


LOOPBACK = Settings(("127.0.0.0/8", "::1/128"))


async def post(client: EgressClient, url: str, seconds: float = PATIENT_SECONDS, **headers: str) -> EgressReply:
    return await client.post(url, b"body", headers, seconds)


@asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[tuple[ScriptedHttp, EgressClient]]:
    async with ScriptedHttp(**options) as server, egress(LOOPBACK) as client:
        yield server, client


async def test_exactly_these_bytes_arrive_and_the_answer_comes_back() -> None:
    body = '{"b":1,  "a":"é"}\r\n'.encode()
    async with listening() as (server, client):
        server.will(answer(201, b"thanks", X_Request_Id="r-1"))
        reply = await client.post(server.url, body, {"webhook-id": "m-1"}, PATIENT_SECONDS)

    assert (reply.status, reply.body, reply.whole, reply.remote) == (201, b"thanks", True, "127.0.0.1")
    assert reply.headers["x-request-id"] == "r-1"
    [seen] = server.requests
    assert (seen.line, seen.body) == ("POST /hook HTTP/1.1", body)
    assert seen.headers["webhook-id"] == "m-1"
    assert seen.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    async with listening() as (server, client), ScriptedHttp() as elsewhere:
        server.will(answer(status, b"", Location=elsewhere.url))
        reply = await post(client, server.url)

    assert reply.status == status
    assert not elsewhere.requests


async def test_one_tenants_cookie_is_not_sent_with_anothers_request() -> None:
    async with listening() as (server, client):
        server.always(answer(200, Set_Cookie="session=tenant-a; Path=/"))
        for _ in range(3):
            await post(client, server.url.replace("127.0.0.1", "localhost"))

    assert len(server.requests) == 3
    assert not [seen for seen in server.requests if "cookie" in seen.headers]


async def test_no_proxy_and_no_login_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login worker password hunter2\n")
    async with listening() as (server, client):
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        await post(client, server.url)

    assert "authorization" not in server.requests[0].headers


# How an address of the machine itself may be written, or asked for by a name; every one of these did connect with a
# guard that only looks at names.
DISGUISES = [
    "http://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://0.0.0.0:{port}/",
    "http://0:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://127。0。0。1:{port}/",
    "http://１２７.０.０.１:{port}/",  # noqa: RUF001
    "http://localhost:{port}/",
    "http://LOCALHOST.:{port}/",
    "http://ⓛocalhost:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://user:pw@127.0.0.1:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@example.com/",
    "https://127.0.0.1:443/",
    "https://localhost/",
]


@pytest.mark.parametrize("disguise", DISGUISES)
async def test_the_machines_own_services_are_not_reached(disguise: str) -> None:
    async with ScriptedHttp() as server, egress(Settings()) as client:
        with pytest.raises(EgressRefused):
            await post(client, disguise.format(port=server.port))

    assert server.connections == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_name_that_resolves_to_a_private_address_is_refused(scheme: str) -> None:
    for addresses in (["127.0.0.1"], ["::1"], ["10.0.0.1", "::ffff:127.0.0.1"], ["169.254.169.254"]):
        async with egress(Settings(), resolver=Names(addresses)) as client:
            with pytest.raises(EgressRefused, match=r"webhook\.example"):
                await post(client, f"{scheme}://webhook.example/")


@pytest.mark.parametrize("url", ["http://webhook.example/", "https://webhook.example:6379/"])
async def test_a_public_address_that_is_not_listed_is_reached_by_https_on_a_usual_port_alone(url: str) -> None:
    async with egress(LOOPBACK, resolver=Names(["1.1.1.1"])) as client:
        with pytest.raises(EgressRefused, match=r"webhook\.example is not reached by https? on port \d+ unless"):
            await post(client, url)


async def test_a_name_that_resolves_publicly_for_a_check_and_privately_for_the_connection_is_refused() -> None:
    names = Names(["1.1.1.1"], ["127.0.0.1"])
    authority = trustme.CA()
    async with tls_server(authority, "webhook.example") as server:
        async with egress(Settings(), tls=trusting(authority), resolver=names) as client:
            # The look-up of a guard that checks first and connects later.
            assert [found["host"] for found in await names.resolve("webhook.example")] == ["1.1.1.1"]
            with pytest.raises(EgressRefused):
                await post(client, "https://webhook.example/")
        assert server.connections == 0


async def test_of_a_mix_only_the_admitted_address_is_connected_to() -> None:
    """Listed and unlisted loopback addresses stand for public and private ones, which no test may reach."""
    settings = Settings(("127.0.0.2/32",))
    async with ScriptedHttp(host="127.0.0.2") as listed, ScriptedHttp(host="127.0.0.1") as other:
        for port, mix in ((listed.port, ["127.0.0.1", "127.0.0.2"]), (listed.port, ["::1", "127.0.0.2", "127.0.0.1"])):
            async with egress(settings, resolver=Names(mix)) as client:
                assert (await post(client, f"http://webhook.example:{port}/")).remote == "127.0.0.2"
        # The admitted one does not listen there: that is an outage, and no reason to turn to the other one.
        async with egress(settings, resolver=Names(["127.0.0.1", "127.0.0.2"])) as client:
            with pytest.raises(NotReached):
                await post(client, f"http://webhook.example:{other.port}/")
        assert other.connections == 0


async def test_what_is_listed_is_reached_by_http_and_on_any_port_and_what_is_not_is_not() -> None:
    async with ScriptedHttp() as server:
        async with egress(Settings(("127.0.0.1/32",))) as client:
            assert (await post(client, server.url)).status == 200
        async with egress(Settings(("127.0.0.2/32",))) as client:
            with pytest.raises(EgressRefused, match=r"127.0.0.1 is not reached by http on port \d+ unless EGRESS_ALL"):
                await post(client, server.url)
    assert server.connections == 1


async def test_an_unknown_host_is_refused_and_a_name_server_that_is_away_is_not_a_refusal() -> None:
    class Failing(Names):
        def __init__(self, code: int) -> None:
            super().__init__([])
            self.code = code

        async def resolve(self, *_: Any, **__: Any) -> list[Any]:
            raise socket.gaierror(self.code, "no")

    async with egress(Settings(), resolver=Failing(socket.EAI_NONAME)) as client:
        with pytest.raises(EgressRefused, match=r"there is no host webhook\.example"):
            await post(client, "https://webhook.example/")
    async with egress(Settings(), resolver=Failing(socket.EAI_AGAIN)) as client:
        with pytest.raises(NotReached):
            await post(client, "https://webhook.example/")


async def test_a_gzip_bomb_stays_packed_and_no_more_is_read_than_is_kept() -> None:
    bomb = gzip.compress(bytes(30_000_000))
    async with listening() as (server, client):
        server.will(answer(200, bomb, Content_Encoding="gzip"), ENDLESS, answer(200, b"x" * KEPT_BYTES), answer())
        packed = await post(client, server.url)
        endless = await post(client, server.url)
        full = await post(client, server.url)
        await post(client, server.url)

    assert (packed.body, packed.whole) == (bomb[:KEPT_BYTES], False)
    assert (len(endless.body), endless.whole) == (KEPT_BYTES, False)
    assert len(full.body) == KEPT_BYTES
    # A connection with an unread rest is not used again.
    assert server.requests[2].connection != server.requests[1].connection


@pytest.mark.parametrize("stage", [HANG, DRIP_HEAD])
async def test_a_receiver_that_does_not_answer_in_time_leaves_the_end_unknown(stage: Action) -> None:
    async with listening() as (server, client):
        server.always(stage)
        started = time.monotonic()
        with pytest.raises(NoAnswer, match=r"127.0.0.1 did not answer within 0.4 s") as caught:
            await post(client, server.url, IMPATIENT_SECONDS)

    assert caught.value.timed_out
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("stage", [DRIP, HANG_IN_BODY])
async def test_a_body_that_drips_is_cut_off_and_its_status_stands(stage: Action) -> None:
    async with listening() as (server, client):
        server.always(stage)
        started = time.monotonic()
        reply = await post(client, server.url, IMPATIENT_SECONDS)

    assert (reply.status, reply.whole) == (200, False)
    assert 0.3 < time.monotonic() - started < 10


async def test_a_handshake_that_hangs_ends_with_nothing_sent() -> None:
    async with ScriptedHttp(silent=True) as server, egress(LOOPBACK) as client:
        with pytest.raises(NotReached) as caught:
            await post(client, f"https://127.0.0.1:{server.port}/", IMPATIENT_SECONDS)

    assert caught.value.timed_out
    assert server.connections == 1


async def test_a_name_server_that_hangs_ends_with_nothing_sent() -> None:
    class Hanging(Names):
        async def resolve(self, *_: Any, **__: Any) -> list[Any]:
            await asyncio.Event().wait()
            return []

    async with egress(LOOPBACK, resolver=Hanging([])) as client:
        with pytest.raises(NotReached) as caught:
            await post(client, "https://webhook.example/", IMPATIENT_SECONDS)
    assert caught.value.timed_out


async def test_a_refused_connection_is_nothing_sent() -> None:
    async with listening() as (server, client):
        url = server.url
    async with egress(LOOPBACK) as client:
        with pytest.raises(NotReached, match=r"127.0.0.1 could not be connected to") as caught:
            await post(client, url)
    assert not caught.value.timed_out


@pytest.mark.parametrize(
    "step", [CLOSE, GARBLE, b"HTTP/9.9 hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"]
)
async def test_a_connection_that_ends_without_an_answer_leaves_the_end_unknown(step: Action | bytes) -> None:
    async with listening() as (server, client):
        server.always(step)
        with pytest.raises(NoAnswer) as caught:
            await post(client, server.url)

    assert not caught.value.timed_out
    assert len(server.requests) == 1


async def test_a_dead_kept_connection_is_replaced_at_once_and_the_request_is_the_same() -> None:
    async with listening() as (server, client):
        server.will(answer(), CLOSE, answer())
        await post(client, server.url, webhook_id="m-1")
        reply = await post(client, server.url, webhook_id="m-2")

    assert reply.status == 200
    assert [(seen.connection, seen.headers["webhook_id"]) for seen in server.requests] == [
        (1, "m-1"),
        (1, "m-2"),
        (2, "m-2"),
    ]


async def test_only_one_instant_repetition_is_made() -> None:
    async with listening() as (server, client):
        server.will(answer())
        await post(client, server.url)
        server.always(CLOSE)
        with pytest.raises(NoAnswer):
            await post(client, server.url)

    assert len(server.requests) == 3


async def test_many_dead_connections_cost_one_repetition_each() -> None:
    async with listening() as (server, client):
        await asyncio.gather(*(post(client, server.url) for _ in range(8)))
        server.will(*[CLOSE] * 8)
        replies = await asyncio.gather(*(post(client, server.url) for _ in range(8)))

    assert {reply.status for reply in replies} == {200}


async def test_a_receiver_that_closes_after_each_answer_is_no_trouble() -> None:
    async with listening() as (server, client):
        server.always(ANSWER_AND_CLOSE)
        replies = [await post(client, server.url) for _ in range(5)]
    assert {reply.status for reply in replies} == {200}


async def test_a_cancelled_request_leaves_the_client_usable() -> None:
    async with listening() as (server, client):
        server.will(HANG)
        task = asyncio.create_task(post(client, server.url))
        await server.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await post(client, server.url)).status == 200


@asynccontextmanager
async def greeting(words: bytes) -> AsyncIterator[int]:
    """Listen for connections, and speak first."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_tls_is_checked_against_the_name() -> None:
    authority = trustme.CA()
    async with tls_server(authority, "webhook.example") as server:
        names = Names(["127.0.0.1"])
        async with egress(LOOPBACK, tls=trusting(authority), resolver=names) as client:
            assert (await post(client, server.url)).status == 200
            with pytest.raises(NotReached, match=r"other\.example showed a certificate that is not trusted"):
                await post(client, f"https://other.example:{server.port}/")
        async with egress(LOOPBACK, resolver=names) as client:
            with pytest.raises(NotReached, match="not trusted"):
                await post(client, server.url)
        async with greeting(b"220 mail.example.com ESMTP\r\n") as port, egress(LOOPBACK) as client:
            with pytest.raises(NotReached, match="does not speak TLS"):
                await post(client, f"https://127.0.0.1:{port}/")
    assert [seen.headers["host"] for seen in server.requests] == [f"webhook.example:{server.port}"]


async def test_an_operators_address_is_trusted_and_nothing_is_sent_twice_to_it() -> None:
    async with ScriptedHttp() as server, trusted_egress() as client:
        assert (await post(client, server.url)).status == 200
        assert (await client.get(server.url, {"Authorization": "Basic x"}, PATIENT_SECONDS)).status == 200
        server.will(CLOSE)
        with pytest.raises(NoAnswer):
            await post(client, server.url)
        server.will(HANG)
        with pytest.raises(NoAnswer):
            await post(client, server.url, IMPATIENT_SECONDS)
        for url in ("ftp://127.0.0.1/", f"http://ada:secret@127.0.0.1:{server.port}/"):
            with pytest.raises(EgressRefused):
                await post(client, url)

    assert [seen.line.split()[0] for seen in server.requests] == ["POST", "GET", "POST", "POST"]
