"""Answers of any size, from servers on loopback that redirect, drip and hang up."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from far_hosts import Names, tls_server, trusting
from scripted_http import (
    BREAK_OFF,
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
    EgressClient,
    EgressRefused,
    NoAnswer,
    NotReached,
    Patience,
    StreamedReply,
    addresses,
    egress,
    trusted_egress,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENT = Patience(20.0)
IMPATIENT = Patience(0.4)
QUICK = Patience(20.0, window_seconds=0.5, least_bytes=10_000)


@dataclass(frozen=True)
class Settings:
    egress_allowed_cidrs: tuple[str, ...] = ()


LOOPBACK = Settings(("127.0.0.0/8", "::1/128"))


ONE_LISTED = Settings(("127.0.0.1/32",))


@asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[tuple[ScriptedHttp, EgressClient]]:
    async with ScriptedHttp(**options) as server, egress(LOOPBACK) as client:
        yield server, client


@asynccontextmanager
async def far_and_inside() -> AsyncIterator[tuple[ScriptedHttp, ScriptedHttp]]:
    """Listen as a stranger's server, and as a service at an address that is not listed."""
    async with ScriptedHttp(host="127.0.0.1") as server, ScriptedHttp(host="127.0.0.2") as service:
        yield server, service


async def fetched(
    client: EgressClient, url: str, patience: Patience = PATIENT, **headers: str
) -> tuple[StreamedReply, bytes]:
    body = bytearray()
    async with client.streamed(url, headers, patience) as reply:
        while piece := await reply.piece():
            body += piece
    return reply, bytes(body)


def redirect(url: str, status: int = 302) -> bytes:
    return answer(status, b"elsewhere", Location=url)


async def test_a_body_far_larger_than_what_is_kept_of_others_comes_whole() -> None:
    body = bytes(range(256)) * 12_000
    chunks = b"".join(b"4000\r\n" + body[at : at + 0x4000] + b"\r\n" for at in range(0, 0x2EC000, 0x4000))
    async with listening() as (server, client):
        server.will(answer(200, body), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        reply, declared = await fetched(client, server.url)
        chunked_reply, chunked = await fetched(client, server.url)

    assert (reply.size, declared) == (len(body), body)
    assert (chunked_reply.size, chunked) == (None, body[:0x2EC000])
    assert [seen.headers["accept-encoding"] for seen in server.requests] == ["identity"] * 2
    assert [seen.connection for seen in server.requests] == [1, 2]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_and_take_no_header_to_another_origin(status: int) -> None:
    async with listening() as (server, client), ScriptedHttp() as elsewhere:
        server.will(redirect("/second", status), redirect(elsewhere.url, status))
        elsewhere.will(answer(200, b"found"))
        reply, body = await fetched(client, server.url, Authorization="Bearer x", Cookie="a=b")

    assert (reply.status, reply.url, body) == (200, elsewhere.url, b"found")
    assert [seen.line for seen in server.requests] == ["GET /hook HTTP/1.1", "GET /second HTTP/1.1"]
    assert [seen.headers.get("authorization") for seen in server.requests] == ["Bearer x"] * 2
    [stranger] = elsewhere.requests
    assert not {"authorization", "cookie", "referer"} & stranger.headers.keys()
    assert stranger.headers["accept-encoding"] == "identity"


async def test_five_redirects_are_followed_and_no_more() -> None:
    async with listening() as (server, client):
        server.will(*[redirect("/again")] * 5, answer(200, b"at last"))
        assert (await fetched(client, server.url))[1] == b"at last"
        server.always(redirect("/again"))
        with pytest.raises(EgressRefused, match=r"127\.0\.0\.1 redirects more than 5 times"):
            await fetched(client, server.url)

    assert len(server.requests) == 12


# Where a stranger's server may try to send somebody inside; `{port}` is one that listens there and is not listed.
INSIDE = [
    "http://169.254.169.254/latest/meta-data/",
    "https://169.254.169.254/",
    "//169.254.169.254/latest",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://2852039166/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://127.0.0.2:{port}/",
    "http://[::ffff:127.0.0.2]:{port}/",
    "http://2130706434:{port}/",
    "http://[::1]:{port}/",
    "http://[fe80::1%25lo]/",
    "http://1.1.1.1/",
    "https://1.1.1.1:6379/",
    "http://user:password@127.0.0.1/",
    "file:///etc/passwd",
    "ftp://127.0.0.1/",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "data:text/plain,hello",
    "http://[::1",
    "http://127.0.0.1:99999/",
]


@pytest.mark.parametrize("inside", INSIDE)
async def test_no_redirect_leads_to_where_a_url_would_not(inside: str) -> None:
    async with far_and_inside() as (server, service), egress(ONE_LISTED) as client:
        server.will(redirect(inside.format(port=service.port)))
        with pytest.raises(EgressRefused, match="redirects to"):
            await fetched(client, server.url)

    assert (len(server.requests), service.connections) == (1, 0)


async def test_a_redirect_to_a_name_of_an_inner_address_is_refused_whatever_it_resolved_to_before() -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1"], ["::ffff:127.0.0.2"])
    async with far_and_inside() as (server, service), egress(ONE_LISTED, resolver=names) as client:
        for round_ in range(3):
            # Each name is new to the client, which asks for none of them twice.
            server.will(redirect(f"http://inner-{round_}.example:{service.port}/"))
            with pytest.raises(EgressRefused, match=rf"far-{round_}\.example redirects to .* inner-{round_}\.example"):
                await fetched(client, f"http://far-{round_}.example:{server.port}/")

    assert (names.asked, len(server.requests), service.connections) == (6, 3, 0)


async def test_a_redirect_may_lead_from_https_to_what_the_operator_listed_and_to_nothing_else_by_http() -> None:
    authority = trustme.CA()
    async with tls_server(authority, "far.example") as server, ScriptedHttp() as plain:
        async with egress(LOOPBACK, tls=trusting(authority), resolver=Names(["127.0.0.1"])) as client:
            server.will(redirect(plain.url))
            assert (await fetched(client, server.url))[0].url == plain.url
        names = Names(["127.0.0.1"], ["1.1.1.1"])
        async with egress(LOOPBACK, tls=trusting(authority), resolver=names) as client:
            server.will(redirect("http://public.example/"))
            with pytest.raises(EgressRefused, match=r"public\.example is not reached by http on port 80"):
                await fetched(client, server.url)


async def test_a_redirect_is_bound_by_its_own_scheme_and_port_and_not_by_those_it_comes_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority = trustme.CA()
    async with tls_server(authority, "far.example") as server:
        # As if it listened where any public address may be reached.
        monkeypatch.setattr(addresses, "USUAL_PORTS", frozenset({server.port}))
        for url in ("http://public.example/", "https://public.example:6379/", f"http://public.example:{server.port}/"):
            names = Names(["127.0.0.1"], ["1.1.1.1"])
            async with egress(LOOPBACK, tls=trusting(authority), resolver=names) as client:
                server.will(redirect(url))
                with pytest.raises(EgressRefused, match=r"public\.example is not reached by https? on port"):
                    await fetched(client, server.url)


async def test_an_address_that_the_operator_configured_redirects_nobody() -> None:
    async with ScriptedHttp() as server, trusted_egress() as client:
        server.will(redirect("/other"))
        reply, _ = await fetched(client, server.url)

    assert (reply.status, len(server.requests)) == (302, 1)


@pytest.mark.parametrize("answered", [answer(300, b"", Location="/a"), answer(304, b"", Location="/a"), answer(302)])
async def test_what_is_no_redirect_is_an_answer(answered: bytes) -> None:
    async with listening() as (server, client):
        server.will(answered)
        await fetched(client, server.url)
    assert len(server.requests) == 1


# A signature may be over what was written, not over what it means.
@pytest.mark.parametrize(
    "path",
    [
        "/a%2Fb?X-Amz-Credential=A%2F2026&sig=a%2Bb%3D",
        "/%7Euser/a%20b.pdf?",
        "/a;b,c/~x?q=%C3%A4&&=",
        "/a/../b",
        "/%61?%61=%61",
    ],
)
async def test_a_url_is_asked_for_as_it_was_written(path: str) -> None:
    async with listening() as (server, client):
        server.will(redirect(path))
        await fetched(client, server.url.removesuffix("/hook") + path)

    asked = [seen.line.split()[1] for seen in server.requests]
    assert asked[0] == path.removesuffix("?")
    assert asked[1] == path.removesuffix("?") or ".." in path


async def test_a_location_with_letters_of_a_language_is_understood() -> None:
    async with listening() as (server, client):
        raw = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /Käse 1.pdf\r\n\r\n".encode()
        server.will(raw)
        await fetched(client, server.url)
        await fetched(client, server.url.removesuffix("/hook") + "/Käse.pdf")

    assert [seen.line.split()[1] for seen in server.requests[1:]] == ["/K%C3%A4se%201.pdf", "/K%C3%A4se.pdf"]


async def test_a_body_that_breaks_off_is_no_whole_one() -> None:
    async with listening() as (server, client):
        server.will(BREAK_OFF)
        with pytest.raises(NoAnswer, match=r"127\.0\.0\.1 closed the connection in the middle") as caught:
            await fetched(client, server.url)
    assert not caught.value.timed_out


async def test_what_is_sent_beyond_the_declared_size_reaches_nobody() -> None:
    async with listening() as (server, client):
        server.will(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour and more\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
        with pytest.raises(NoAnswer, match="not HTTP"):
            await fetched(client, server.url)
        assert (await fetched(client, server.url))[1] == b"ok"

    assert [seen.connection for seen in server.requests] == [1, 2]


@pytest.mark.parametrize("stage", [DRIP, HANG_IN_BODY])
async def test_a_server_that_drips_is_given_up_long_before_the_time_limit(stage: Action) -> None:
    async with listening() as (server, client):
        server.always(stage)
        started = time.monotonic()
        with pytest.raises(NoAnswer, match=r"sends too slowly: less than 10000 bytes in 0\.5 s") as caught:
            await fetched(client, server.url, QUICK)

    assert caught.value.timed_out
    assert 0.4 < time.monotonic() - started < 10


async def test_a_server_that_keeps_its_pace_ends_at_the_time_limit() -> None:
    async with listening() as (server, client):
        server.always(ENDLESS)
        with pytest.raises(NoAnswer, match=r"did not send everything within 0\.4 s"):
            await fetched(client, server.url, IMPATIENT)


@pytest.mark.parametrize("stage", [HANG, DRIP_HEAD])
async def test_a_server_that_does_not_answer_ends_at_the_time_limit(stage: Action) -> None:
    async with listening() as (server, client):
        server.always(stage)
        with pytest.raises(NoAnswer, match=r"did not answer within 0\.4 s") as caught:
            await fetched(client, server.url, IMPATIENT)
    assert caught.value.timed_out


async def test_all_hops_share_one_time_limit() -> None:
    async with listening() as (server, client):
        server.will(redirect("/a"), redirect("/b"), HANG)
        started = time.monotonic()
        with pytest.raises(NoAnswer):
            await fetched(client, server.url, Patience(1.0))
    assert 0.9 < time.monotonic() - started < 10


async def test_a_handshake_that_hangs_ends_at_the_limit_for_connections() -> None:
    async with ScriptedHttp(silent=True) as server, egress(LOOPBACK) as client:
        with pytest.raises(NotReached, match=r"no connection to 127\.0\.0\.1 within 0\.5 s") as caught:
            await fetched(client, f"https://127.0.0.1:{server.port}/", Patience(60.0, connect_seconds=0.5))
    assert caught.value.timed_out


@pytest.mark.parametrize("step", [CLOSE, GARBLE, b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"])
async def test_what_is_no_answer_is_none(step: Action | bytes) -> None:
    async with listening() as (server, client):
        server.always(step)
        with pytest.raises(NoAnswer):
            await fetched(client, server.url)


async def test_whoever_leaves_early_hangs_up() -> None:
    async with listening() as (server, client):
        server.always(ENDLESS)
        async with client.streamed(server.url, {}, PATIENT) as reply:
            assert await reply.piece()
        async with asyncio.timeout(20):
            while server._tasks:
                await asyncio.wait(server._tasks)
