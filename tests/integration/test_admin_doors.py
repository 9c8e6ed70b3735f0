"""`/admin/...` over HTTP: who is let in, what is read, and on which loop it is done."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from asking import KEY, TOKEN, ask
from worker_runtime import admin
from worker_runtime.admin import MOST_BYTES, AdminDoors, Answer, Request
from worker_runtime.health import HealthServer
from worker_runtime.health_board import HealthBoard, Identity

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def served(token: str | None) -> Iterator[tuple[AdminDoors, str]]:
    doors = AdminDoors(SecretStr(token) if token else None)
    board = HealthBoard(Identity("w"), stall_limit_ms=5_000, config={})
    server = HealthServer(board, lambda: b"", host="127.0.0.1", port=0, doors=doors)
    server.start()
    try:
        yield doors, f"http://127.0.0.1:{server.port}"
    finally:
        server.stop()


async def echo(request: Request) -> Answer:
    return Answer(200, {"body": dict(request.body), "thread": threading.current_thread().name, "from": request.remote})


ECHO = {("POST", "/admin/echo"): echo}


async def test_who_has_the_token_is_answered_by_the_workers_own_loop() -> None:
    with served(TOKEN) as (doors, url), doors.opened(ECHO):
        status, body, headers = await asyncio.to_thread(ask, f"{url}/admin/echo", KEY, b'{"a": 1}')
        assert (status, body["body"], body["from"]) == (200, {"a": 1}, "127.0.0.1")
        assert body["thread"] == threading.current_thread().name
        assert headers["Cache-Control"] == "no-store"
        assert (await asyncio.to_thread(ask, f"{url}/admin/echo", KEY, None))[1]["body"] == {}
    # What was opened is closed with its owner.
    with served(TOKEN) as (doors, url):
        with doors.opened(ECHO):
            pass
        assert (await asyncio.to_thread(ask, f"{url}/admin/echo"))[0] == 404


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (None, 401),
        ("", 401),
        (TOKEN, 401),
        ("Bearer", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer wrong", 403),
        (f"{KEY}x", 403),
        (KEY[:-1], 403),
        (f"bearer {TOKEN}", 200),
    ],
)
async def test_nobody_else_is_let_in(key: str | None, status: int) -> None:
    with served(TOKEN) as (doors, url), doors.opened(ECHO), capture_logs() as lines:
        answered, _, headers = await asyncio.to_thread(ask, f"{url}/admin/echo", key)
        assert answered == status
        assert (headers.get("WWW-Authenticate") == "Bearer") is (status == 401)
        # Who has no token does not even learn what is there.
        if status != 200:
            assert (await asyncio.to_thread(ask, f"{url}/admin/nothing", key))[0] == status
            assert [line["event"] for line in lines] == ["admin_refused"] * 2
            assert TOKEN not in str(lines)


async def test_without_a_token_there_is_nothing() -> None:
    with served(None) as (doors, url), doors.opened(ECHO):
        for key in (None, KEY, "Bearer "):
            assert (await asyncio.to_thread(ask, f"{url}/admin/echo", key))[:2] == (404, {"error": "Not Found"})


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/admin/echo", None, 405),
        ("DELETE", "/admin/echo", None, 405),
        ("POST", "/admin/nothing", b"{}", 404),
        ("POST", "/admin/echo", b"{", 400),
        ("POST", "/admin/echo", b"[1]", 400),
        ("POST", "/admin/echo", b"\xff", 400),
        ("POST", "/admin/echo", b"[" * 100_000, 400),
        ("POST", "/admin/echo", b'{"a": "' + b"x" * MOST_BYTES + b'"}', 413),
    ],
)
async def test_what_makes_no_sense_is_refused(method: str, path: str, body: bytes | None, status: int) -> None:
    with served(TOKEN) as (doors, url), doors.opened(ECHO):
        answered, said, headers = await asyncio.to_thread(ask, url + path, KEY, body, method)
        assert (answered, bool(said["error"])) == (status, True)
        assert (headers.get("Allow") == "POST") is (status == 405)


async def test_a_body_without_a_length_is_bounded_too() -> None:
    def flood(url: str) -> bytes:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            head = f"POST /admin/echo HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sendall(head.encode())
            chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
            for _ in range(MOST_BYTES // 0x10000 + 2):
                connection.sendall(chunk)
            return connection.recv(1_000)

    with served(TOKEN) as (doors, url), doors.opened(ECHO):
        assert (await asyncio.to_thread(flood, url)).startswith(b"HTTP/1.1 413 ")


async def test_an_action_that_fails_or_takes_too_long_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = asyncio.Event()

    async def fail(_: Request) -> Answer:
        raise RuntimeError("ada@example.com")

    async def hang(_: Request) -> Answer:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    monkeypatch.setattr(admin, "ACTION_SECONDS", 0.2)
    actions = {("POST", "/admin/fail"): fail, ("POST", "/admin/hang"): hang}
    with served(TOKEN) as (doors, url), doors.opened(actions), capture_logs() as lines:
        failed = await asyncio.to_thread(ask, f"{url}/admin/fail")
        assert failed[:2] == (500, {"error": "RuntimeError; the log says more"})
        assert [line["event"] for line in lines] == ["admin_failed"]
        assert (await asyncio.to_thread(ask, f"{url}/admin/hang"))[0] == 503
        async with asyncio.timeout(5):
            await cancelled.wait()


async def test_a_blocked_worker_is_told_from_one_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "ACTION_SECONDS", 0.2)
    with served(TOKEN) as (doors, url), doors.opened(ECHO), ThreadPoolExecutor(1) as pool:
        # Waiting for the answer on the very loop that should give it.
        status, said, _ = pool.submit(ask, f"{url}/admin/echo").result(10)
        assert (status, "look before you ask again" in said["error"]) == (503, True)
