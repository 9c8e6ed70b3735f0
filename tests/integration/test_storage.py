"""The object store over a real folder, and over a server that is not there, silent, or says no."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from worker_runtime.storage import (
    ImpossibleKey,
    NoSuchObject,
    ObjectStore,
    ObjectTooLarge,
    StorageError,
    StorageUnavailable,
    storage_location,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(b"secret")
    root = tmp_path / "objects"
    (root / "invoices").mkdir(parents=True)
    (root / "invoices" / "Käse & 1.pdf").write_bytes(b"x" * 100)
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "in").symlink_to(root / "invoices")
    return root


@pytest.mark.parametrize("key", ["invoices/Käse & 1.pdf", "in/Käse & 1.pdf"])
async def test_an_object_is_read_by_its_key(folder: Path, key: str) -> None:
    assert await ObjectStore(str(folder)).read(key, 100) == b"x" * 100
    assert await ObjectStore(folder.as_uri()).read(key, 100) == b"x" * 100


async def test_an_object_has_a_url_when_the_store_has_one(folder: Path) -> None:
    store = ObjectStore(folder.as_uri() + "/")

    assert store.key_of(f"{folder.as_uri()}/invoices/K%C3%A4se%20&%201.pdf") == "invoices/Käse & 1.pdf"
    for url in (f"{folder.as_uri()}x/a", "https://example.com/a", "s3://other/a", "file:///etc/passwd", ""):
        with pytest.raises(ImpossibleKey):
            store.key_of(url)
    with pytest.raises(ImpossibleKey):
        ObjectStore(str(folder)).key_of(f"{folder}/invoices/a")


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("nope", NoSuchObject),
        ("invoices", NoSuchObject),
        ("../secret", ImpossibleKey),
        ("invoices/../../secret", ImpossibleKey),
        ("/etc/passwd", ImpossibleKey),
        ("//etc/passwd", ImpossibleKey),
        ("./invoices", ImpossibleKey),
        ("", ImpossibleKey),
        ("a\x00b", ImpossibleKey),
        ("a\nb", ImpossibleKey),
        ("a" * 2000, ImpossibleKey),
        ("out", ImpossibleKey),
        ("invoices/Käse & 1.pdf", ObjectTooLarge),
    ],
)
async def test_what_cannot_be_read_says_what_to_do(folder: Path, key: str, error: type[StorageError]) -> None:
    with pytest.raises(error) as caught:
        await ObjectStore(str(folder)).read(key, 99)
    assert type(caught.value) is error
    assert str(folder) not in str(caught.value)


async def test_a_folder_that_is_not_mounted_is_not_an_object_that_is_missing(tmp_path: Path) -> None:
    store = ObjectStore(str(tmp_path / "objects"))
    with pytest.raises(StorageUnavailable):
        await store.read("a", 1)
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "a").write_bytes(b"a")

    assert await store.read("a", 1) == b"a"


@asynccontextmanager
async def web_server(answer: bytes | None) -> AsyncIterator[int]:
    """Answer every request like that, or never."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while (await reader.readline()).strip():
            pass
        if answer is not None:
            writer.write(answer)
            writer.close()

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        await server.wait_closed()


def http(status: str, body: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    return f'{head}ETag: "1"\r\nConnection: close\r\n\r\n'.encode() + body


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-west-1",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http("404 Not Found"), NoSuchObject),
        (http("403 Forbidden"), StorageUnavailable),
        (http("401 Unauthorized"), StorageUnavailable),
        (http("500 Oh"), StorageUnavailable),
        (http("200 OK", b"four"), ObjectTooLarge),
        (b"what?\r\n", StorageUnavailable),
        (None, StorageUnavailable),
    ],
)
async def test_a_store_that_refuses_or_is_silent(
    s3: pytest.MonkeyPatch, answer: bytes | None, error: type[StorageError]
) -> None:
    async with web_server(answer) as port:
        s3.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{port}")
        with pytest.raises(error):
            await ObjectStore("s3://bucket/prefix").read("a", 3, seconds=2.0)


async def test_a_store_is_asked_for_the_object_under_its_prefix(s3: pytest.MonkeyPatch) -> None:
    async with web_server(http("200 OK", b"abc")) as port:
        s3.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{port}")

        assert await ObjectStore("s3://bucket/prefix/").read("a", 3) == b"abc"


async def test_a_store_that_is_not_there(s3: pytest.MonkeyPatch) -> None:
    async with web_server(None) as port:
        pass
    s3.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(StorageUnavailable):
        await ObjectStore("s3://bucket").read("a", 3)


@pytest.mark.parametrize("value", [".data/objects", "/srv/objects", "file:///srv", "s3://b/p", "gs://b", "az://a/c"])
def test_a_folder_or_a_store_is_a_location(value: str) -> None:
    assert storage_location(value) == value


@pytest.mark.parametrize("value", ["https://example.com/files", "http://localhost", "ftp://x", "memory://"])
def test_a_web_address_is_not(value: str) -> None:
    with pytest.raises(ValueError):
        storage_location(value)
