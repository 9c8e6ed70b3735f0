"""Documents of the folder that `file:` URLs may point into, and of nothing beside it."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from engine_harness import until
from fetch_desk import FetchDesk, fetch_desk
from ingestion_worker.fetching import files
from ingestion_worker.fetching.failed import FetchFailed
from ingestion_worker.fetching.files import Files
from ingestion_worker.problem import Problem
from worker_runtime.outcome import DeadLetter, Defer, Retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.pdf").write_bytes(b"secret")
    (tmp_path / "rooted").mkdir()
    (tmp_path / "rooted" / "secret.pdf").write_bytes(b"secret")
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "in" / "Käse #1?.pdf").write_bytes(b"cheese")
    (root / "link.pdf").symlink_to("in/Käse #1?.pdf")
    (root / "folder").symlink_to("in")
    (root / "out.pdf").symlink_to("../secret.pdf")
    (root / "absolute.pdf").symlink_to(tmp_path / "secret.pdf")
    (root / "up").symlink_to("..")
    (root / "loop.pdf").symlink_to("loop.pdf")
    (root / "dangling.pdf").symlink_to("nothing.pdf")
    (root / "passwd").symlink_to("/etc/passwd")
    os.mkfifo(root / "fifo.pdf")
    return root


@asynccontextmanager
async def desk_at(root: Path) -> AsyncIterator[FetchDesk]:
    async with fetch_desk(root.parent, documents_root=root) as desk:
        yield desk


@pytest.mark.parametrize(
    "url",
    [
        "file://{root}/in/K%C3%A4se%20%231%3F.pdf",
        "file://localhost{root}/in/K%C3%A4se%20%231%3F.pdf",
        "file:{root}/in/K%C3%A4se%20%231%3F.pdf",
        "FILE://{root}/folder/../in/./K%C3%A4se%20%231%3F.pdf",
        "file://{root}/folder/K%C3%A4se%20%231%3F.pdf",
        "file://{root}/link.pdf",
        "file://{root}/up/root/link.pdf",
    ],
)
async def test_a_file_below_the_root_arrives(root: Path, url: str) -> None:
    async with desk_at(root) as desk:
        fetched = await desk.fetch(url.format(root=root))

    assert fetched.path.read_bytes() == b"cheese"
    assert (fetched.size, fetched.sha256) == (6, hashlib.sha256(b"cheese").digest())
    assert fetched.name == ("link.pdf" if "link" in url else "Käse #1?.pdf")
    assert (fetched.media_type, fetched.charset) == (None, None)


async def test_a_root_may_itself_be_behind_a_symlink(root: Path) -> None:
    (root.parent / "documents").symlink_to("root")
    async with desk_at(root.parent / "documents") as desk:
        for folder in ("root", "documents"):
            assert (await desk.fetch(f"file://{root.parent}/{folder}/link.pdf")).size == 6


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("{root}/out.pdf", "FETCH_REFUSED"),
        ("{root}/absolute.pdf", "FETCH_REFUSED"),
        ("{root}/passwd", "FETCH_REFUSED"),
        ("{root}/up/secret.pdf", "FETCH_REFUSED"),
        ("{root}/../secret.pdf", "FETCH_REFUSED"),
        ("{root}/%2e%2e/secret.pdf", "FETCH_REFUSED"),
        ("{root}/in/..%2f..%2fsecret.pdf", "FETCH_REFUSED"),
        ("{root}ed/secret.pdf", "FETCH_REFUSED"),
        ("{root}/../no-such-file-outside", "FETCH_REFUSED"),
        ("/etc/passwd", "FETCH_REFUSED"),
        ("/proc/self/environ", "FETCH_REFUSED"),
        ("/", "FETCH_REFUSED"),
        ("{root}", "FETCH_REFUSED"),
        ("{root}/", "FETCH_REFUSED"),
        ("{root}/in", "FETCH_REFUSED"),
        ("{root}/folder", "FETCH_REFUSED"),
        ("{root}/fifo.pdf", "FETCH_REFUSED"),
        ("{root}/loop.pdf", "FETCH_REFUSED"),
        ("{root}/dangling.pdf", "DOCUMENT_MISSING"),
        ("{root}/nothing.pdf", "DOCUMENT_MISSING"),
        ("{root}/link.pdf/more", "DOCUMENT_MISSING"),
        ("{root}/" + "a" * 300, "DOCUMENT_MISSING"),
        ("{root}/" + "a/" * 3000, "DOCUMENT_MISSING"),
        ("{root}/in/a%00b.pdf", "INVALID_PAYLOAD"),
        ("{root}/link.pdf?x", "INVALID_PAYLOAD"),
        ("{root}/link.pdf#x", "INVALID_PAYLOAD"),
    ],
)
async def test_nothing_else_does(root: Path, path: str, code: str) -> None:
    async with desk_at(root) as desk:
        outcome = await desk.refused("file://" + path.format(root=root))

    assert (type(outcome), outcome.code) == (DeadLetter, code)
    assert str(root.parent) not in outcome.reason


async def test_a_socket_and_a_device_are_not_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # The path of a socket must be short.
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.pdf")
        async with desk_at(root) as desk:
            assert "not a regular file" in (await desk.refused(f"file://{root}/socket.pdf")).reason
    (root.parent / "again").mkdir()
    async with fetch_desk(root.parent / "again", documents_root=Path("/dev")) as desk:
        for device in ("null", "zero", "full"):
            assert "not a regular file" in (await desk.refused(f"file:///dev/{device}")).reason


async def test_another_machine_is_not_asked(root: Path) -> None:
    async with desk_at(root) as desk:
        assert (await desk.refused(f"file://fileserver{root}/link.pdf")).code == "INVALID_PAYLOAD"


async def test_without_a_root_there_are_no_files(root: Path) -> None:
    async with fetch_desk(root.parent) as desk:
        assert await desk.refused(f"file://{root}/link.pdf") == DeadLetter(
            "FETCH_REFUSED", "file: URLs are read only below DOCUMENTS_ROOT, which is not set"
        )


async def test_a_root_that_is_not_mounted_is_waited_for(root: Path) -> None:
    async with desk_at(root.parent / "not-mounted") as desk:
        outcome = await desk.refused(f"file://{root.parent}/not-mounted/a.pdf")
    assert isinstance(outcome, Defer)
    assert outcome.code == "STORAGE_UNAVAILABLE"


async def test_a_file_over_the_limit_is_not_copied(root: Path) -> None:
    with (root / "large").open("wb") as file:
        file.truncate(5_000_001)
    async with desk_at(root) as desk:
        assert await desk.problem(f"file://{root}/large") is Problem.TOO_LARGE


@contextmanager
def nobodys_threads() -> Iterator[ThreadPoolExecutor]:
    """Yield threads that read files with the rights of nobody: those of root would open everything."""
    with ThreadPoolExecutor(1, initializer=lambda: ctypes.CDLL(None).setfsuid(65_534)) as pool:
        yield pool


@pytest.fixture
def open_root() -> Iterator[Path]:
    """A folder with a file that nobody may read, below folders that everybody may enter."""
    with TemporaryDirectory() as name:
        root = Path(name)
        (root / "a.pdf").write_bytes(b"a")
        (root / "a.pdf").chmod(0)
        root.chmod(0o755)
        yield root


async def test_a_file_that_may_not_be_read_says_what_to_do(open_root: Path) -> None:
    with nobodys_threads() as pool, pytest.raises(FetchFailed, match="FETCH_REFUSED: the worker's user may not read"):
        await Files(open_root, pool).fetch(f"file://{open_root}/a.pdf", Landed())  # type: ignore[arg-type]


@dataclass
class Landed:
    """Takes a document, and does something when its first piece has come."""

    then: Callable[[], object] = bool
    content: bytes = b""

    def expect(self, size: int | None) -> None:
        self.size = size

    async def take(self, piece: bytes) -> None:
        if not self.content:
            self.then()
        self.content += piece


def write_over(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")


def append_to(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("meddle", [write_over, append_to, lambda path: os.truncate(path, 1_500_000)])
async def test_a_file_that_is_written_to_meanwhile_is_read_again_later(
    root: Path, meddle: Callable[[Path], object]
) -> None:
    path = root / "growing.bin"
    path.write_bytes(bytes(3_000_000))
    os.utime(path, (1, 1))
    landed = Landed(lambda: meddle(path))
    with ThreadPoolExecutor(1) as pool, pytest.raises(FetchFailed) as caught:
        await Files(root, pool).fetch(f"file://{path}", landed)  # type: ignore[arg-type]
    assert caught.value.outcome == Retry("FETCH_CHANGED", "the file was written to while it was read")


async def test_a_file_that_is_replaced_or_removed_meanwhile_is_the_one_it_was(root: Path) -> None:
    path = root / "replaced.bin"
    path.write_bytes(b"a" * 3_000_000)
    (root / "new.bin").write_bytes(b"b" * 3_000_000)
    with ThreadPoolExecutor(1) as pool:
        landed = Landed(lambda: (root / "new.bin").rename(path))
        await Files(root, pool).fetch(f"file://{path}", landed)  # type: ignore[arg-type]
        assert landed.content == b"a" * 3_000_000
        landed = Landed(path.unlink)
        await Files(root, pool).fetch(f"file://{path}", landed)  # type: ignore[arg-type]
    assert landed.content == b"b" * 3_000_000


@contextmanager
def swapping(one: Path, other: Path, place: Path) -> Iterator[None]:
    """Have now the one and now the other at a place, as fast as it goes."""
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            one.rename(place)
            place.rename(one)
            other.rename(place)
            place.rename(other)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        yield
    finally:
        ended.set()
        swapper.join()


@pytest.mark.parametrize("what", ["file", "folder", "fifo"])
async def test_whatever_is_swapped_nothing_outside_is_read(root: Path, what: str) -> None:
    (root / "one").mkdir()
    (root / "one" / "secret.pdf").write_bytes(b"public")
    (root / "fine.pdf").write_bytes(b"public")
    (root / "other").symlink_to(root.parent / "rooted")
    one, other, place, path = {
        "file": ("fine.pdf", "out.pdf", "now.pdf", "now.pdf"),
        "folder": ("one", "other", "now", "now/secret.pdf"),
        "fifo": ("fine.pdf", "fifo.pdf", "now.pdf", "now.pdf"),
    }[what]
    seen = []
    with ThreadPoolExecutor(1) as pool, swapping(root / one, root / other, root / place):
        for _ in range(1500):
            landed = Landed()
            try:
                await Files(root, pool).fetch(f"file://{root}/{path}", landed)  # type: ignore[arg-type]
                seen.append(landed.content)
            except FetchFailed as failed:
                seen.append(failed.outcome.code.encode())
    assert set(seen) <= {b"public", b"DOCUMENT_MISSING", b"FETCH_REFUSED", b"FETCH_INTERRUPTED"}
    assert {b"public", b"FETCH_REFUSED"} <= set(seen)


async def test_a_file_that_becomes_a_symlink_after_it_was_looked_at_is_not_opened(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = files._must_be_regular

    def look_and_swap(found: os.stat_result) -> None:
        look(found)
        (root / "out.pdf").rename(root / "now.pdf")

    (root / "now.pdf").write_bytes(b"public")
    monkeypatch.setattr(files, "_must_be_regular", look_and_swap)
    async with desk_at(root) as desk:
        assert (await desk.refused(f"file://{root}/now.pdf")).code == "DOCUMENT_MISSING"


async def test_a_folder_that_becomes_a_symlink_after_the_path_was_resolved_is_not_entered(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = files._Document._root_folder

    def swap_and_enter(document: Any) -> int:
        (root / "now").rename(root / "before")
        (root / "now").symlink_to(root.parent / "rooted")
        return enter(document)

    (root / "now").mkdir()
    (root / "now" / "secret.pdf").write_bytes(b"public")
    monkeypatch.setattr(files._Document, "_root_folder", swap_and_enter)
    async with desk_at(root) as desk:
        assert (await desk.refused(f"file://{root}/now/secret.pdf")).code == "DOCUMENT_MISSING"


async def test_a_cancelled_fetch_of_a_large_file_ends_at_once(root: Path) -> None:
    with (root / "large").open("wb") as file:
        file.truncate(1 << 34)
    async with fetch_desk(root.parent, documents_root=root, document_max_bytes=1 << 35) as desk:
        task = asyncio.create_task(desk.fetch(f"file://{root}/large"))
        await until(desk.writing)
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 1.0
        assert not desk.left()
        desk.folder.rmdir()


async def test_no_file_stays_open(root: Path) -> None:
    async with desk_at(root) as desk:
        await desk.fetch(f"file://{root}/link.pdf")
        before = open_files()
        for _ in range(30):
            await desk.fetch(f"file://{root}/link.pdf")
            with pytest.raises(FetchFailed):
                await desk.fetch(f"file://{root}/in")

        async def closed() -> bool:
            return open_files() <= before

        await until(closed)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
