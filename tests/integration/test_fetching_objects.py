"""Documents of the object store: a real S3 server in a process of its own, and a folder."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from engine_harness import until
from fetch_desk import fetch_desk
from ingestion_worker.problem import Problem
from s3_server import BUCKET, S3Server, s3_server
from worker_runtime.outcome import DeadLetter, Defer, Retry
from worker_runtime.storage import PIECE_BYTES, ImpossibleKey, NoSuchObject, ObjectStore, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from obstore import Bytes

LARGE = 50_000_000
STORE = f"s3://{BUCKET}/tenant files"


@pytest.fixture(scope="module")
def shared_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(shared_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """A server that works, and an environment that lets everybody in."""
    for name, value in shared_s3.environment.items():
        monkeypatch.setenv(name, value)
    return shared_s3


@pytest.fixture
def own_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server that a test may stop."""
    with s3_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def pattern(size: int) -> bytes:
    return hashlib.shake_128(b"a document").digest(65_521) * (size // 65_521) + bytes(size % 65_521)


async def test_fifty_megabytes_arrive_by_url_and_by_key(s3: S3Server, tmp_path: Path) -> None:
    body = pattern(LARGE)
    s3.put("tenant files/a/Größe 1%.pdf", body)
    async with fetch_desk(tmp_path, storage_url=STORE, document_max_bytes=LARGE) as desk:
        for url in (f"{STORE}/a/Gr%C3%B6%C3%9Fe%201%25.pdf", "a/Größe 1%.pdf"):
            fetched = await desk.fetch(url)
            assert (fetched.size, fetched.sha256) == (LARGE, hashlib.sha256(body).digest())
            assert fetched.path.read_bytes() == body
            assert (fetched.name, fetched.media_type, fetched.charset) == ("Größe 1%.pdf", None, None)
            fetched.path.unlink()


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1])
async def test_an_object_of_any_size_arrives(s3: S3Server, tmp_path: Path, size: int) -> None:
    s3.put(f"tenant files/{size}", pattern(size))
    async with fetch_desk(tmp_path, storage_url=STORE, document_max_bytes=size or 1) as desk:
        fetched = await desk.fetch(str(size))
    assert fetched.path.read_bytes() == pattern(size)


async def test_what_is_not_there_or_too_large_or_no_key(s3: S3Server, tmp_path: Path) -> None:
    s3.put("tenant files/ten", bytes(10))
    async with fetch_desk(tmp_path, storage_url=STORE, document_max_bytes=9) as desk:
        missing = DeadLetter("DOCUMENT_MISSING", "the document is not in the object store")
        assert await desk.refused("nope.pdf") == missing
        assert await desk.refused(f"{STORE}/nope.pdf?signature=x") == missing
        assert await desk.problem("ten") is Problem.TOO_LARGE
        for url in ("s3://another/a", f"s3://{BUCKET}/another/a", f"{STORE}/../a", f"{STORE}/", "a//b", "a\0b"):
            outcome = await desk.refused(url)
            assert (type(outcome), outcome.code) == (DeadLetter, "INVALID_PAYLOAD")


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
async def test_credentials_that_are_wrong_are_waited_for(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    s3.put("tenant files/a", b"a")
    monkeypatch.setenv(name, "AKIAWRONG")
    async with fetch_desk(tmp_path, storage_url=STORE) as desk:
        outcome = await desk.refused("a")
    assert isinstance(outcome, Defer)
    assert outcome.code == "STORAGE_UNAVAILABLE"
    assert "WRONG" not in outcome.reason


async def test_a_bucket_that_is_not_there(s3: S3Server, tmp_path: Path) -> None:
    async with fetch_desk(tmp_path, storage_url="s3://no-such-bucket") as desk:
        assert (await desk.refused("a")).code in {"DOCUMENT_MISSING", "STORAGE_UNAVAILABLE"}


async def test_a_server_that_is_stopped_midway_is_waited_for(own_s3: S3Server, tmp_path: Path) -> None:
    own_s3.put("tenant files/large", pattern(LARGE))
    store = ObjectStore(STORE)
    taken = []

    async def take(piece: Bytes) -> None:
        taken.append(len(piece))
        if len(taken) == 3:
            own_s3.stop()

    with pytest.raises(StorageUnavailable):
        await store.fetch_to("large", take, LARGE)
    assert taken == [PIECE_BYTES] * 3
    async with fetch_desk(tmp_path, storage_url=STORE) as desk:
        outcome = await desk.refused("large")
    assert isinstance(outcome, Defer)
    store.close()


async def test_an_object_that_is_replaced_midway_is_read_again(s3: S3Server, tmp_path: Path) -> None:
    s3.put("tenant files/changing", pattern(3 * PIECE_BYTES))
    async with fetch_desk(tmp_path, storage_url=STORE, document_max_bytes=LARGE) as desk:
        after_each_piece(desk.fetcher._store, lambda: s3.put("tenant files/changing", bytes(3 * PIECE_BYTES)))
        outcome = await desk.refused("changing")
    assert outcome == Retry("FETCH_CHANGED", "the object was replaced while it was read")


async def test_a_cancelled_fetch_from_a_server_that_hangs_leaves_nobody_writing(
    own_s3: S3Server, tmp_path: Path
) -> None:
    own_s3.put("tenant files/large", pattern(LARGE))
    async with fetch_desk(tmp_path, storage_url=STORE, document_max_bytes=LARGE) as desk:
        store = desk.fetcher._store
        after_each_piece(store, own_s3.freeze)
        task = asyncio.create_task(desk.fetch("large"))
        await until(desk.writing)
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 1.0
        assert not desk.left()
        desk.folder.rmdir()
        own_s3.thaw()
        # Whoever still reads gets it now, and must not know what to do with it.
        await asyncio.to_thread(store._readers.shutdown)
        assert not desk.folder.exists()


def after_each_piece(store: ObjectStore, then: Callable[[], object]) -> None:
    read_piece = store._read_piece

    def read(*arguments: Any) -> Bytes:
        piece = read_piece(*arguments)
        then()
        return piece

    store._read_piece = read  # type: ignore[assignment,method-assign]


async def test_an_object_is_written_and_read_back_and_removed(s3: S3Server, tmp_path: Path) -> None:
    (tmp_path / "result").write_bytes(pattern(12_000_000))
    store = ObjectStore(f"s3://{BUCKET}/results")
    await store.put("a/b.ndjson", tmp_path / "result")
    await store.put("a/c.json", b"{}")
    assert await store.read("a/b.ndjson", LARGE) == pattern(12_000_000)
    assert await store.read("a/c.json", 2) == b"{}"
    await store.remove("a/b.ndjson")
    await store.remove("a/b.ndjson")
    with pytest.raises(NoSuchObject):
        await store.read("a/b.ndjson", LARGE)
    with pytest.raises(ImpossibleKey):
        await store.put("../a", b"")
    store.close()


async def test_nothing_is_written_while_the_store_is_away(own_s3: S3Server) -> None:
    own_s3.stop()
    store = ObjectStore(STORE)
    for writing in (store.put("a", b"a"), store.remove("a")):
        with pytest.raises(StorageUnavailable):
            await writing
    store.close()


async def test_a_folder_is_a_store_too(tmp_path: Path) -> None:
    objects = tmp_path / "objects"
    objects.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (objects / "out").symlink_to(tmp_path / "secret")
    (objects / "in").mkdir()
    (objects / "in" / "a.pdf").write_bytes(pattern(2 * PIECE_BYTES))
    async with fetch_desk(tmp_path, storage_url=objects.as_uri(), document_max_bytes=LARGE) as desk:
        for url in ("in/a.pdf", f"{objects.as_uri()}/in/a.pdf"):
            assert (await desk.fetch(url)).size == 2 * PIECE_BYTES
            (desk.folder / "source").unlink()
        codes = [(await desk.refused(key)).code for key in ("out", "../secret", "in", "in/b.pdf")]
    assert codes == ["INVALID_PAYLOAD", "INVALID_PAYLOAD", "DOCUMENT_MISSING", "DOCUMENT_MISSING"]


async def test_a_relative_folder_is_made_and_an_absolute_one_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await ObjectStore(".data/objects").put("a/b", b"content")
    assert (tmp_path / ".data" / "objects" / "a" / "b").read_bytes() == b"content"
    with pytest.raises(StorageUnavailable, match="the folder 'mount' of STORAGE_URL is not there"):
        await ObjectStore(str(tmp_path / "mount")).put("a/b", b"content")
    assert not (tmp_path / "mount").exists()
