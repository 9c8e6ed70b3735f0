"""All pages of a document: a few ahead, side by side, each handed over once, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from ingestion_worker.document import Page
from ingestion_worker.ocr.engine import EngineFailed, PictureLimits, PictureTooLarge, Recognised, opened_engine
from ingestion_worker.ocr.recognition import AHEAD, HOPELESS, PageOrder, recognise_pages
from ingestion_worker.problem import DocumentError, Problem
from ocr_harness import InThreads, done, ocr_settings
from scans import ENGLISH, GERMAN, character_error_rate, pdf, picture
from worker_runtime.outcome import Defer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ingestion_worker.ocr.recognition import Summary

ORDER = PageOrder("application/pdf", 100)


class Reader:
    """An engine that reads what the test says; it keeps count of what it has before it, and of what was handed over."""

    name = "reader"
    at_once = 3

    def __init__(self, tasks: InThreads, folder: Path, *, limits: PictureLimits | None = None) -> None:
        self.limits = limits or PictureLimits(40_000_000)
        self.asked: Counter[int] = Counter()
        self.under_way = self.most_under_way = self.most_pictures = 0
        self.fails: dict[int, list[Exception]] = {}
        self.texts: dict[int, str] = {}
        self.hangs: set[int] = set()
        self.reached = asyncio.Event()
        self.pages: list[Page] = []
        self._tasks, self._folder = tasks, folder

    async def recognise(self, folder: Path, image: str, page: int, _language: str | None) -> Recognised:
        self.asked[page] += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.most_pictures = max(self.most_pictures, sum(name.endswith(".png") for name in names_in(folder)))
        assert image in names_in(folder)
        try:
            if page in self.hangs:
                self.reached.set()
                await asyncio.Event().wait()
            if self.fails.get(page):
                raise self.fails[page].pop(0)
            await asyncio.sleep(0)
            return Recognised(self.texts.get(page, f"text of {page}"), 0.9)
        finally:
            self.under_way -= 1

    async def on_page(self, page: Page) -> None:
        self.pages.append(page)

    async def read(self, *numbers: int, order: PageOrder = ORDER) -> Summary:
        pages = [Page(number, "", "none", "NO_TEXT") for number in numbers]
        return await recognise_pages(self._tasks, self, self._folder, pages, order, self.on_page)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    (tmp_path / "source").write_bytes(pdf(*(f"page {number}" for number in range(1, 31))))
    return Reader(InThreads(), tmp_path)


async def test_every_page_is_handed_over_once_and_few_pictures_are_there_at_once(
    reader: Reader, tmp_path: Path
) -> None:
    summary = await reader.read(*range(1, 31))

    assert sorted(page.number for page in reader.pages) == list(range(1, 31))
    assert Page(7, "text of 7", "ocr", "NO_TEXT", 0.9) in reader.pages
    assert (summary.read, summary.failed) == (30, {})
    assert reader.most_under_way == 3
    assert reader.most_pictures <= AHEAD
    assert names_in(tmp_path) == ["source"]


async def test_pictures_wait_for_readers(reader: Reader, tmp_path: Path) -> None:
    reader.hangs = set(range(1, 31))
    task = asyncio.create_task(reader.read(*range(1, 31)))
    async with asyncio.timeout(30):
        while len(names_in(tmp_path)) < AHEAD + 1:  # noqa: ASYNC110  files have no event
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)  # What must not happen has no event either: a ninth picture.

    assert len(names_in(tmp_path)) == AHEAD + 1

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_page_without_text_has_no_confidence_and_one_that_had_some_keeps_it(
    reader: Reader, tmp_path: Path
) -> None:
    reader.texts = {1: "", 2: ""}
    pages = [Page(1, "", "none", "NO_TEXT"), Page(2, "was there", "text", "ASKED_FOR")]

    await recognise_pages(InThreads(), reader, tmp_path, pages, ORDER, reader.on_page)

    assert sorted(reader.pages, key=lambda page: page.number) == pages


async def test_a_page_whose_child_died_once_is_read_again(reader: Reader) -> None:
    reader.fails = {2: [DocumentError(Problem.CRASH, "signal 11")]}

    summary = await reader.read(1, 2, 3)

    assert (summary.read, summary.failed, reader.asked[2]) == (3, {}, 2)


@pytest.mark.parametrize(
    ("problem", "asked"), [(Problem.CRASH, 2), (Problem.TIMEOUT, 2), (Problem.OOM, 2), (Problem.UNSUPPORTED, 1)]
)
async def test_a_page_that_cannot_be_read_does_not_take_the_others_with_it(
    reader: Reader, problem: Problem, asked: int
) -> None:
    reader.fails = {2: [DocumentError(problem, "no")] * 5}

    summary = await reader.read(1, 2, 3)

    assert Page(2, "", "none", f"FAILED:{problem}") in reader.pages
    assert (summary.read, summary.failed, reader.asked[2]) == (2, {problem: 1}, asked)


async def test_where_no_page_can_be_read_the_document_cannot(reader: Reader) -> None:
    reader.fails = {number: [DocumentError(Problem.UNSUPPORTED, "no")] for number in range(1, 31)}

    with pytest.raises(DocumentError, match="UNSUPPORTED"):
        await reader.read(*range(1, 31))

    assert reader.asked.total() <= HOPELESS + reader.at_once


async def test_an_engine_that_is_out_stops_it_all_and_keeps_what_was_read(reader: Reader) -> None:
    reader.fails = {5: [EngineFailed(Defer("PROVIDER_UNAVAILABLE", "no connection", 5))]}

    with pytest.raises(EngineFailed, match="PROVIDER_UNAVAILABLE"):
        await reader.read(*range(1, 31))

    assert 1 <= len(reader.pages) < 29
    assert reader.under_way == 0


async def test_what_the_caller_raises_ends_it(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(page: Page) -> None:
        raise ConnectionError("the database is away")

    monkeypatch.setattr(reader, "on_page", lost)
    reader.hangs = {2}

    with pytest.raises(ConnectionError):
        await reader.read(1, 2, 3)

    assert reader.under_way == 0


async def test_cancelling_it_leaves_nothing_running(reader: Reader) -> None:
    reader.hangs = {3}
    task = asyncio.create_task(reader.read(*range(1, 31)))
    await asyncio.wait_for(reader.reached.wait(), 30)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert reader.under_way == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_document_that_cannot_be_opened_is_the_problem(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(pdf("locked", password="secret"))

    with pytest.raises(DocumentError, match="ENCRYPTED"):
        await reader.read(1)

    assert (await reader.read(1, order=PageOrder("application/pdf", 100, password="secret"))).read == 1
    assert "secret" not in repr(PageOrder("application/pdf", 100, password="secret"))


async def test_a_page_of_which_there_can_be_no_picture_fails_alone(reader: Reader) -> None:
    summary = await reader.read(1, 31)

    assert (summary.read, summary.failed) == (1, {"CORRUPT": 1})


class Fragile(InThreads):
    """Children that die over one page, whatever other pages they were to make pictures of."""

    def __init__(self, page: int, *, from_pixels: int = 0) -> None:
        super().__init__()
        self.page = page
        self.from_pixels = from_pixels

    async def run(self, task: str, order: Mapping[str, Any], folder: Path, **_: Any) -> dict[str, Any]:
        self.orders.append((task, dict(order)))
        if task == "render" and self.page in order["pages"] and order["maxPixels"] > self.from_pixels:
            raise DocumentError(Problem.OOM, "it takes more memory than there is")
        return done(task, dict(order), folder)


async def test_a_page_for_which_memory_is_short_gets_a_smaller_picture(reader: Reader, tmp_path: Path) -> None:
    pages = [Page(number, "", "none", "NO_TEXT") for number in range(1, 5)]
    tasks = Fragile(3, from_pixels=20_000_000)

    summary = await recognise_pages(tasks, reader, tmp_path, pages, ORDER, reader.on_page)

    assert (summary.read, summary.failed) == (4, {})
    made = [(order["pages"], order["maxPixels"] // 1_000_000) for _, order in tasks.orders]
    assert made == [([1, 2, 3, 4], 40), ([1], 40), ([2], 40), ([3], 40), ([3], 20), ([4], 40)]


async def test_the_page_over_which_a_child_dies_is_found(reader: Reader, tmp_path: Path) -> None:
    pages = [Page(number, "", "none", "NO_TEXT") for number in range(1, 9)]

    summary = await recognise_pages(Fragile(6), reader, tmp_path, pages, ORDER, reader.on_page)

    assert (summary.read, summary.failed) == (7, {"OOM": 1})
    assert sorted(page.number for page in reader.pages) == list(range(1, 9))


async def test_a_picture_that_is_too_large_for_the_engine_is_made_smaller_once(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(pdf("one", "two"))
    tasks = InThreads()
    reader = Reader(tasks, tmp_path, limits=PictureLimits(1_000_000, bytes=200_000))
    reader.fails = {1: [PictureTooLarge()], 2: [PictureTooLarge(), PictureTooLarge()]}

    summary = await reader.read(1, 2)

    assert (summary.read, summary.failed) == (1, {"TOO_LARGE": 1})
    assert [(order["maxPixels"], order["maxBytes"]) for _, order in tasks.orders] == [
        (1_000_000, 200_000),
        (500_000, 100_000),
        (500_000, 100_000),
    ]


async def test_a_scan_of_two_pages_is_read_by_tesseract(tmp_path: Path) -> None:
    first, second = picture(ENGLISH, dpi=150), picture(GERMAN, dpi=150)
    first.save(tmp_path / "source", "TIFF", save_all=True, append_images=[second], compression="tiff_lzw")
    tasks, pages = InThreads(), dict[int, Page]()

    async def keep(page: Page) -> None:
        pages[page.number] = page

    async with opened_engine(ocr_settings(), tasks, lambda *_: pytest.fail("no dependency")) as engine:
        scans = [Page(number, "", "none", "NO_TEXT") for number in (1, 2)]
        summary = await recognise_pages(
            tasks, engine, tmp_path, scans, PageOrder("image/tiff", 300, "deu+eng+fra"), keep
        )

    assert character_error_rate(ENGLISH, pages[1].text) <= 0.01
    assert character_error_rate(GERMAN, pages[2].text) <= 0.01
    assert all(page.origin == "ocr" and (page.confidence or 0) > 0.9 for page in pages.values())
    assert summary.warnings == {"Tesseract has no data for the language fra; installed: deu, eng"}
    assert names_in(tmp_path) == ["source"]
