"""Documents of web servers on loopback that lie, drip, redirect and hang up."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import resource
import shutil
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from engine_harness import until
from fetch_desk import MOST, FetchDesk, fetch_desk
from ingestion_worker.fetching.web import Web, outcome_of_answer
from ingestion_worker.problem import Problem
from scripted_http import BREAK_OFF, CLOSE, DRIP, ENDLESS, HANG, HANG_IN_BODY, Action, ScriptedHttp, answer
from worker_runtime.egress import Patience
from worker_runtime.outcome import DeadLetter, Defer, Retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@asynccontextmanager
async def desk_and_server(folder: Path, **options: Any) -> AsyncIterator[tuple[FetchDesk, ScriptedHttp]]:
    async with ScriptedHttp() as server, fetch_desk(folder, **options) as desk:
        yield desk, server


async def test_a_document_arrives_with_its_hash_and_what_is_said_about_it(tmp_path: Path) -> None:
    body = bytes(range(256)) * 12_000
    async with desk_and_server(tmp_path) as (desk, server):
        server.will(answer(200, body, Content_Type='Text/HTML; Charset="ISO-8859-1"'))
        fetched = await desk.fetch(f"{server.url}s/K%C3%A4se%201.HTML?sig=x#page")

    assert fetched.path == desk.folder / "source"
    assert fetched.path.read_bytes() == body
    assert (fetched.sha256, fetched.size) == (hashlib.sha256(body).digest(), len(body))
    assert (fetched.media_type, fetched.charset, fetched.name) == ("text/html", "ISO-8859-1", "Käse 1.HTML")
    assert desk.left() == ["source"]
    [seen] = server.requests
    assert seen.line == "GET /hooks/K%C3%A4se%201.HTML?sig=x HTTP/1.1"
    assert seen.headers["user-agent"] == "IntelliFlow-Documents/1"


async def test_three_megabytes_in_chunks_of_every_size_arrive(tmp_path: Path) -> None:
    body = bytes(range(251)) * 12_000
    pieces, at = [], 0
    for number in range(1, 3000):
        piece = body[at : at + number % 4099]
        pieces.append(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        at += len(piece)
    async with desk_and_server(tmp_path) as (desk, server):
        server.will(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(pieces) + b"0\r\n\r\n")
        fetched = await desk.fetch(server.url)

    assert fetched.path.read_bytes() == body[:at]
    assert at > 3_000_000
    assert (fetched.media_type, fetched.charset, fetched.name) == (None, None, "hook")


async def test_a_document_without_bytes_is_a_file_without_bytes(tmp_path: Path) -> None:
    async with desk_and_server(tmp_path) as (desk, server):
        server.will(answer(200, b""))
        fetched = await desk.fetch(server.url)
    assert (fetched.size, fetched.path.read_bytes(), fetched.sha256) == (0, b"", hashlib.sha256(b"").digest())


async def test_the_limit_itself_is_allowed_and_one_byte_more_is_not(tmp_path: Path) -> None:
    async with desk_and_server(tmp_path, document_max_bytes=1000) as (desk, server):
        server.will(answer(200, bytes(1000)), answer(200, bytes(1001)))
        assert (await desk.fetch(server.url)).size == 1000
        (desk.folder / "source").unlink()
        assert await desk.problem(server.url) is Problem.TOO_LARGE


async def test_what_says_that_it_is_too_large_is_not_waited_for(tmp_path: Path) -> None:
    async with desk_and_server(tmp_path) as (desk, server):
        server.will(f"HTTP/1.1 200 OK\r\nContent-Length: {MOST + 1}\r\n\r\n".encode())
        assert await desk.problem(server.url) is Problem.TOO_LARGE


@pytest.mark.parametrize("step", [ENDLESS, b"HTTP/1.1 200 OK\r\n\r\n" + bytes(MOST + 1)])
async def test_a_body_that_does_not_end_is_cut_off_at_the_limit(tmp_path: Path, step: Action | bytes) -> None:
    async with desk_and_server(tmp_path) as (desk, server):
        server.will(step)
        with largest_file(desk.folder) as most:
            assert await desk.problem(server.url) is Problem.TOO_LARGE
        assert most() <= MOST


@contextmanager
def largest_file(folder: Path) -> Iterator[Any]:
    """Watch, from another thread, how large a file in the folder grows."""
    seen, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.001):
            for path in folder.iterdir():
                try:
                    seen.append(path.stat().st_size)
                except FileNotFoundError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield lambda: max(seen)
    ended.set()
    watcher.join()


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "x-unknown", "GZIP, identity"])
async def test_what_is_compressed_is_not_taken(tmp_path: Path, encoding: str) -> None:
    bomb = gzip.compress(bytes(30_000_000))
    async with desk_and_server(tmp_path) as (desk, server):
        server.will(answer(200, bomb, Content_Encoding=encoding), answer(200, b"plain", Content_Encoding="identity"))
        outcome = await desk.refused(server.url)
        assert (await desk.fetch(server.url)).size == 5

    assert outcome == DeadLetter(
        "FETCH_REFUSED", "127.0.0.1 sent the document compressed, though it was asked not to: it is not unpacked"
    )
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (BREAK_OFF, "FETCH_INTERRUPTED"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nfour", "FETCH_INTERRUPTED"),
        (CLOSE, "FETCH_INTERRUPTED"),
        (answer(500), "FETCH_FAILED"),
        (answer(503, Retry_After="120"), "FETCH_FAILED"),
        (answer(429), "FETCH_THROTTLED"),
        (answer(404), "DOCUMENT_MISSING"),
        (answer(410), "DOCUMENT_MISSING"),
        (answer(403), "FETCH_REFUSED"),
        (answer(401), "FETCH_REFUSED"),
        (answer(204, b""), "FETCH_REFUSED"),
        (answer(206), "FETCH_REFUSED"),
        (answer(302, Location="http://169.254.169.254/latest/meta-data"), "EGRESS_REFUSED"),
        (answer(302, Location="http://[::ffff:10.0.0.1]/"), "EGRESS_REFUSED"),
    ],
)
async def test_what_is_no_document_ends_the_job_in_its_own_way(tmp_path: Path, step: bytes | Action, code: str) -> None:
    async with desk_and_server(tmp_path) as (desk, server):
        server.always(step)
        outcome = await desk.refused(f"{server.url}?secret=signature")

    assert outcome.code == code
    assert "secret" not in outcome.reason
    assert "hook" not in outcome.reason


def test_what_an_answer_means() -> None:
    for status in (408, 425, 500, 502, 503, 504, 599):
        assert outcome_of_answer("h", status, 7.0) == Retry("FETCH_FAILED", f"h answered {status}", 7.0)
    assert [outcome_of_answer("h", 429, wait) for wait in (0.0, 90.0)] == [
        Retry("FETCH_THROTTLED", "h answered 429: it is asked for too much at once", floor) for floor in (60.0, 90.0)
    ]
    for status in (201, 204, 206, 300, 304, 400, 401, 402, 403, 405, 406, 407, 418, 451):
        outcome = outcome_of_answer("h", status)
        assert isinstance(outcome, DeadLetter)
        assert outcome.code == "FETCH_REFUSED"


async def test_a_date_to_come_back_at_is_kept_to(tmp_path: Path) -> None:
    async with desk_and_server(tmp_path) as (desk, server):
        server.will(answer(503, Retry_After="Thu, 01 Jan 1970 00:10:00 GMT"))
        desk.fetcher._sources["http"]._now = lambda: 0.0  # type: ignore[attr-defined]
        assert await desk.refused(server.url) == Retry("FETCH_FAILED", "127.0.0.1 answered 503", 600.0)


async def test_a_host_that_is_not_there_is_tried_again_and_an_inner_one_is_not(tmp_path: Path) -> None:
    async with desk_and_server(tmp_path) as (desk, server):
        pass
    (tmp_path / "again").mkdir()
    async with fetch_desk(tmp_path / "again") as desk:
        assert (await desk.refused(server.url)).code == "FETCH_UNREACHABLE"
        assert isinstance(await desk.refused(server.url), Retry)
        for url in ("http://10.0.0.1/a", "https://[::1]/a", "https://169.254.169.254/", "http://user:pw@127.0.0.1/"):
            outcome = await desk.refused(url)
            assert isinstance(outcome, DeadLetter)
            assert outcome.code == "EGRESS_REFUSED"


@pytest.mark.parametrize("stage", [DRIP, HANG_IN_BODY, HANG])
async def test_a_server_that_takes_its_time_is_given_up(tmp_path: Path, stage: Action) -> None:
    async with desk_and_server(tmp_path, fetch_timeout_ms=400) as (desk, server):
        server.always(stage)
        outcome = await desk.refused(server.url)
    assert isinstance(outcome, Retry)
    assert outcome.code == "FETCH_INTERRUPTED"


async def test_a_slow_pace_is_given_up_before_the_time_limit(tmp_path: Path) -> None:
    async with desk_and_server(tmp_path) as (desk, server):
        server.always(DRIP)
        web = desk.fetcher._sources["http"]
        assert isinstance(web, Web)
        assert web._patience == Patience(60.0, 10.0, 10.0, 10_240)
        web._patience = Patience(60.0, window_seconds=0.3)
        outcome = await desk.refused(server.url)
    assert "127.0.0.1 sends too slowly" in outcome.reason


@pytest.mark.parametrize("stage", [HANG, HANG_IN_BODY, ENDLESS])
async def test_a_cancelled_fetch_ends_at_once_and_leaves_a_folder_that_can_go(tmp_path: Path, stage: Action) -> None:
    async with desk_and_server(tmp_path, document_max_bytes=1_000_000_000) as (desk, server):
        server.always(stage)
        for _ in range(5):
            server.arrived.clear()
            task = asyncio.create_task(desk.fetch(server.url))
            await server.arrived.wait()
            await until(desk.writing if stage is ENDLESS else desk.waiting)
            started = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - started < 1.0
            assert not desk.left()
            shutil.rmtree(desk.folder)
            desk.folder.mkdir()


async def test_a_full_disk_leaves_nothing_and_is_tried_again_later(tmp_path: Path) -> None:
    async with desk_and_server(tmp_path) as (desk, server):
        server.always(answer(200, bytes(3_000_000)))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, limits[1]))
        try:
            outcome = await desk.refused(server.url)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert outcome == Retry("DISK_FULL", "there is no room for the document where it is worked on", 30.0)
        assert (await desk.fetch(server.url)).size == 3_000_000


async def test_a_folder_that_is_gone_is_no_fault_of_the_document(tmp_path: Path) -> None:
    async with desk_and_server(tmp_path) as (desk, server):
        desk.folder.rmdir()
        with pytest.raises(Exception, match=r"DISK_FAILED: .*\(ENOENT\)"):
            await desk.fetch(server.url)
    assert not server.requests


async def test_the_name_comes_from_whoever_knows_it(tmp_path: Path) -> None:
    attached = "attachment; filename=\"x\"; filename*=UTF-8''%2e%2e%2fangebot%20n%c3%a4chstes.pdf"
    async with desk_and_server(tmp_path) as (desk, server):
        server.will(
            answer(302, b"", Location="/blobs/8371"),
            answer(200),
            answer(302, b"", Location="/files/real.docx"),
            answer(200),
            answer(200, Content_Disposition='inline; filename="../../etc/pass\\"wd.pdf"'),
            answer(200, Content_Disposition=attached.replace('filename="x"; ', "")),
            answer(200, Content_Disposition="attachment"),
        )
        names = [(await desk.fetch(f"{server.url}/{path}")).name for path in ("a.pdf", "17", "17", "17", "")]

    assert names == ["a.pdf", "real.docx", 'pass"wd.pdf', "angebot nächstes.pdf", "hook"]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://127.0.0.1/a", "INVALID_PAYLOAD"),
        ("gopher://127.0.0.1/a", "INVALID_PAYLOAD"),
        ("s3://another/a", "INVALID_PAYLOAD"),
        ("HTTPS://10.0.0.1/a", "EGRESS_REFUSED"),
        ("http:///a", "EGRESS_REFUSED"),
        ("../../etc/passwd", "INVALID_PAYLOAD"),
        ("/etc/passwd", "INVALID_PAYLOAD"),
        ("file:///etc/passwd", "FETCH_REFUSED"),
        ("FILE:/etc/passwd", "FETCH_REFUSED"),
    ],
)
async def test_a_url_that_nobody_fetches_is_refused(tmp_path: Path, url: str, code: str) -> None:
    (tmp_path / "objects").mkdir()
    async with fetch_desk(tmp_path) as desk:
        outcome = await desk.refused(url)
    assert (type(outcome), outcome.code) == (DeadLetter, code)


async def test_no_plain_key_is_looked_for_in_a_store_that_is_not_there(tmp_path: Path) -> None:
    async with fetch_desk(tmp_path) as desk:
        outcome = await desk.refused("invoices/1.pdf")
    assert isinstance(outcome, Defer)
    assert outcome.code == "STORAGE_UNAVAILABLE"
